"""Names that resolve, fail, hang and change."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.waiting import until
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.endpoint_state import Health
from torchless.clients.metrics import ClientMetrics
from torchless.clients.settings import ClientSettings
from torchless.contracts.errors import ErrorKind, TorchlessError


class Names:
    """Stands in for the system's resolver: what each name has, or why it has nothing."""

    def __init__(self) -> None:
        self.known: dict[str, list[str] | Exception] = {}
        self.asked: list[str] = []
        self.hang = False
        self.under_way = 0

    def set(self, name: str, *ports: int) -> None:
        """`name` stands for loopback addresses that end in `ports`, without listeners."""
        self.known[name] = [f"127.0.0.{port}" for port in ports]

    async def getaddrinfo(self, host: str, port: int, **options: Any) -> list[Any]:
        self.asked.append(host)
        self.under_way += 1
        try:
            await until(lambda: not self.hang)
        finally:
            self.under_way -= 1
        found = self.known.get(host, socket.gaierror(socket.EAI_NONAME, "not known"))
        if isinstance(found, Exception):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names.getaddrinfo)
    return names


def settings(address: str = "dns:///name:1", **changed: Any) -> ClientSettings:
    return ClientSettings(address=address, **{"discovery": {"interval_s": 0.05, "timeout_s": 1}, **changed})


@pytest.fixture
async def client(names: Names) -> AsyncIterator[EmbeddingClient]:
    client = EmbeddingClient(settings(), ClientMetrics(CollectorRegistry()))
    client._pool.min_refresh_s = 0.02
    yield client
    await client.close()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert names.under_way == 0


def hosts(client: EmbeddingClient) -> list[int]:
    return [int(each.address.split(":")[0].rpartition(".")[2]) for each in client.states()]


async def until_hosts(client: EmbeddingClient, *expected: int) -> None:
    await until(lambda: hosts(client) == list(expected))


async def error_of(client: EmbeddingClient, deadline_s: float = 5) -> TorchlessError:
    with pytest.raises(TorchlessError) as caught:
        await client.embed(["a"], context=CallContext(deadline=Deadline.after(deadline_s)))
    return caught.value


async def test_endpoints_follow_the_addresses_of_a_name(client: EmbeddingClient, names: Names) -> None:
    client.start()
    for ports in ((2,), (2, 3), (3, 4), (4,), (2, 3, 4)):
        names.set("name", *ports)
        await until(lambda ports=ports: sorted(hosts(client)) == list(ports))  # type: ignore[misc]


async def test_endpoint_that_stays_keeps_its_state(client: EmbeddingClient, names: Names) -> None:
    names.set("name", 2)
    client.start()
    await until_hosts(client, 2)
    (endpoint,) = client._pool.endpoints()
    names.set("name", 2, 3)
    await until_hosts(client, 2, 3)
    assert client._pool.endpoints()[0] is endpoint


async def test_changed_health_and_removal_of_endpoints_are_counted(client: EmbeddingClient, names: Names) -> None:
    names.set("name", 2)
    client.start()
    await until_hosts(client, 2)
    await until(lambda: client.endpoint_changes() == 1)  # it is known to be unreachable
    (endpoint,) = client._pool.endpoints()
    endpoint._health_changed(Health.SERVING)
    assert client.endpoint_changes() == 2
    names.set("name", 3)
    await until_hosts(client, 3)
    await until(lambda: client.endpoint_changes() == 4)  # one is gone, the other unreachable


async def test_last_known_addresses_stay_while_lookups_fail(
    client: EmbeddingClient, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    names.set("name", 2, 3)
    client.start()
    await until_hosts(client, 2, 3)
    with caplog.at_level(logging.WARNING, "torchless.clients.endpoints.pool"):
        for failure in (socket.gaierror(socket.EAI_AGAIN, "later"), TimeoutError(), OSError("broken")):
            names.known["name"] = failure
            names.asked.clear()
            await until(lambda: len(names.asked) >= 3)
    assert hosts(client) == [2, 3]
    assert len([record for record in caplog.records if "cannot be resolved" in record.getMessage()]) == 1
    names.set("name", 4)
    await until_hosts(client, 4)


async def test_unknown_name_is_unreachable_at_once_and_looked_up_again(client: EmbeddingClient, names: Names) -> None:
    await client.reconfigure(settings(discovery={"interval_s": 3600}))
    error = await error_of(client)
    assert error.kind is ErrorKind.UNREACHABLE
    assert "cannot be resolved" in error.message
    names.set("name", 2)  # an hour is not waited for
    await until_hosts(client, 2)


async def test_call_waits_for_the_first_lookup_until_its_deadline(client: EmbeddingClient, names: Names) -> None:
    names.hang = True
    assert (await error_of(client, 0.05)).kind in {ErrorKind.UNREACHABLE, ErrorKind.DEADLINE}
    waiting = asyncio.ensure_future(error_of(client))
    await asyncio.sleep(0.05)
    names.set("name", 2)
    names.hang = False
    assert (await waiting).message != (await error_of(client, 0)).message
    assert hosts(client) == [2]


async def test_hanging_lookup_times_out_and_discovery_goes_on(client: EmbeddingClient, names: Names) -> None:
    await client.reconfigure(settings(discovery={"interval_s": 0.02, "timeout_s": 0.05}))
    names.hang = True
    client.start()
    await asyncio.sleep(0.1)
    assert names.under_way <= 1
    names.set("name", 2)
    names.hang = False
    await until_hosts(client, 2)


async def test_late_lookup_is_not_repeated_and_its_result_is_used(client: EmbeddingClient, names: Names) -> None:
    await client.reconfigure(settings(discovery={"interval_s": 0.03, "timeout_s": 0.01}))
    names.hang = True
    client.start()
    await asyncio.sleep(0.1)
    assert names.asked == ["name"]
    names.set("name", 2)
    names.hang = False
    await until_hosts(client, 2)


async def test_lookup_for_previous_settings_is_discarded(client: EmbeddingClient, names: Names) -> None:
    names.set("name", 2)
    names.set("other", 3)
    names.hang = True
    client.start()
    await asyncio.sleep(0.02)
    waiting = asyncio.ensure_future(error_of(client))
    await asyncio.sleep(0.02)
    await client.reconfigure(settings("dns:///other:1"))
    names.hang = False
    await until_hosts(client, 3)
    assert "cannot be resolved" not in (await waiting).message  # it waited for the other name then
    await asyncio.sleep(0.05)
    assert hosts(client) == [3]


async def test_pool_changes_from_name_to_list_and_back(client: EmbeddingClient, names: Names) -> None:
    names.set("name", 2, 3)
    client.start()
    await until_hosts(client, 2, 3)
    await client.reconfigure(settings("127.0.0.9:1"))
    assert hosts(client) == [9]
    names.asked.clear()
    await asyncio.sleep(0.06)
    assert names.asked == []
    await client.reconfigure(settings("127.0.0.9:1,dns:///name:1"))
    await until_hosts(client, 9, 2, 3)


async def test_failed_calls_refresh_discovery_at_a_limited_rate(client: EmbeddingClient, names: Names) -> None:
    client._pool.min_refresh_s = 0.2
    names.set("name", 2)
    await client.reconfigure(settings(discovery={"interval_s": 3600}, breaker={"failures": 1000}))
    client.start()
    await until_hosts(client, 2)
    began, names.asked = time.monotonic(), []
    for _ in range(20):
        client._pool.refresh()
        await asyncio.sleep(0.02)
    assert 1 <= len(names.asked) <= (time.monotonic() - began) / 0.2 + 1


async def test_names_fail_independently(client: EmbeddingClient, names: Names) -> None:
    names.set("b", 3)
    await client.reconfigure(settings("dns:///a:1,dns:///b:1"))
    client.start()
    await until_hosts(client, 3)
    names.set("a", 2)
    await until_hosts(client, 3, 2)


async def test_two_names_of_one_address_are_one_endpoint(client: EmbeddingClient, names: Names) -> None:
    names.set("a", 2)
    names.set("b", 2)
    await client.reconfigure(settings("dns:///a:1,dns:///b:1,127.0.0.2:1"))
    client.start()
    await until_hosts(client, 2)
    await asyncio.sleep(0.05)
    assert hosts(client) == [2]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_closing_ends_during_a_refresh(client: EmbeddingClient, names: Names, turns: int) -> None:
    await client.reconfigure(settings(discovery={"interval_s": 3600}))
    await error_of(client)  # which resolves, and asks for more
    await asyncio.sleep(0.05)
    client._pool.refresh()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await client.close()
