"""Changes of the settings' file: what is applied, what is refused, and what is said of both."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gateway.http.draining import Draining
from gateway.http.metrics import Instruments
from gateway.reload import reloader
from gateway.reload.reloader import Reloader, fingerprint
from gateway.services import Services
from gateway.settings import GatewaySettings
from gateway.worker import WorkerApp
from torchless.clients.gpu import GPUClient
from torchless.clients.settings import ClientSettings

SECRET = "a-key-that-is-secret"
START = "limits: {items: 3}\nembedding: {address: '127.0.0.1:1'}\nreranking: {address: ''}\n"


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await reached():
                return
            await asyncio.sleep(0.01)


class Watched:
    """A reloader over a file, and what has come of its looks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(START)
        self.first = Services.open(GatewaySettings.load(), Draining())
        self.swapped: list[Services] = []
        self.instruments = Instruments()
        self.reloader = Reloader(path, self.first, self.swapped.append, self.instruments)

    @property
    def services(self) -> Services:
        """Those of requests that begin now."""
        return self.swapped[-1] if self.swapped else self.first

    async def look_at(self, content: str) -> None:
        self.path.write_text(content)
        await self.reloader.look()

    def counted(self) -> dict[str, float]:
        lines = self.instruments.exposition().decode().splitlines()
        found = (line.rsplit(" ", 1) for line in lines if line.startswith("torchless_gateway_settings_reloads_total"))
        return {name.split('"')[1]: float(value) for name, value in found}


@pytest_asyncio.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(reloader, "SETTLE_S", 0.02)
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(tmp_path / "gateway.yaml"))
    one = Watched(tmp_path / "gateway.yaml")
    yield one
    await one.reloader.close()
    await one.services.close()


def of_reload(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What reloading has logged; clients log of endpoints, which nobody listens at."""
    return [record for record in caplog.records if record.name == "gateway.reload.reloader"]


async def test_a_change_makes_new_services_and_leaves_the_old_as_they_were(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.look_at(
        f"limits: {{items: 7}}\nauth: {{api_keys: [{SECRET}]}}\nembedding: {{address: '127.0.0.1:1,127.0.0.1:2'}}\n"
        "reranking: {address: ''}"
    )
    before, after = watched.first, watched.services
    assert (before.settings.limits.items, after.settings.limits.items) == (3, 7)
    assert (before.keys, before.embedder) != (after.keys, after.embedder)
    for name in ("embedding", "gpu", "admission", "body_limit", "draining", "reload_state"):
        assert getattr(before, name) is getattr(after, name)
    assert {state.address for state in after.embedding.states()} == {"127.0.0.1:1", "127.0.0.1:2"}
    assert "in force: embedding.address, limits.items, auth.api_keys" in caplog.text
    assert SECRET not in caplog.text
    assert not any("127.0.0.1" in record.getMessage() for record in of_reload(caplog))
    assert watched.counted() == {"applied": 1}


async def test_nothing_is_done_where_nothing_changed(watched: Watched) -> None:
    await watched.look_at(START)
    await watched.look_at(START + "# a remark\n")
    await watched.reloader.look()
    assert watched.swapped == []
    assert watched.counted() == {"unchanged": 2}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (f"limits: {{items: {SECRET}}}", "limits.items: Input should be a valid integer"),
        (f"limits: {{items: 0}}\nauth: {{api_keys: [{SECRET}, short]}}", "auth.api_keys: Value error, a key has"),
        (f"auth: {{api_keys: [{SECRET}", "the file is not YAML: line 1"),
        ("limits: {itmes: 3}", "limits: Extra inputs"),
        ("", "the file is empty"),
    ],
)
async def test_what_cannot_be_used_is_refused_until_it_is_mended(
    watched: Watched, caplog: pytest.LogCaptureFixture, content: str, named: str
) -> None:
    await watched.look_at(content)
    await watched.reloader.look()
    assert watched.swapped == []
    assert named in (watched.services.reload_state.refused or "")
    assert [record.levelno for record in of_reload(caplog)] == [logging.ERROR]
    assert named.partition(":")[0].removeprefix("the file ") in caplog.text
    assert SECRET not in caplog.text + str(watched.services.reload_state.refused)
    assert b"torchless_gateway_settings_refused 1.0" in watched.instruments.exposition()
    await watched.look_at(START.replace("3", "8"))
    assert watched.services.settings.limits.items == 8
    assert watched.services.reload_state.refused is None
    assert watched.counted() == {"refused": 1, "applied": 1}
    assert b"torchless_gateway_settings_refused 0.0" in watched.instruments.exposition()


async def test_a_fault_is_told_once_however_often_it_is_made(watched: Watched) -> None:
    await watched.look_at("".join(f"unknown_{number}: 1\n" for number in range(100)))
    assert watched.services.reload_state.refused == "settings: Extra inputs are not permitted"


async def test_going_back_to_what_is_in_force_mends_as_well(watched: Watched) -> None:
    await watched.look_at("limits: [")
    await watched.look_at(START)
    assert watched.services.reload_state.refused is None
    assert watched.counted() == {"refused": 1, "unchanged": 1}


async def test_a_file_that_goes_away_is_refused_and_its_return_seen(watched: Watched) -> None:
    watched.path.unlink()
    await watched.reloader.look()
    assert watched.services.reload_state.refused == "the file is not there"
    await watched.look_at(START)
    assert watched.services.reload_state.refused is None


async def test_a_file_that_is_being_written_is_waited_for(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = START.replace("3", "9")
    # The first part is no YAML; the second could be used.
    parts = [whole[:9], whole[:18], whole]

    def seen_while_it_is_written(path: Path) -> str:
        if parts:
            path.write_text(parts.pop(0))
        return fingerprint(path)

    monkeypatch.setattr(reloader, "fingerprint", seen_while_it_is_written)
    await watched.reloader.look()
    assert [services.settings.limits.items for services in watched.swapped] == [9]
    assert watched.services.settings.embedding.address == "127.0.0.1:1"
    assert watched.counted() == {"applied": 1}


async def test_variables_win_over_a_changed_file(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_LIMITS__ITEMS", "3")
    await watched.look_at(START.replace("3", "5"))
    assert watched.swapped == []
    await watched.look_at(START.replace("3", "5") + "health: {timeout_s: 1}")
    assert (watched.services.settings.limits.items, watched.services.settings.health.timeout_s) == (3, 1)


async def test_what_waits_for_a_restart_is_named_and_the_rest_applied(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.look_at(f"workers: 3\n{START.replace('3', '5, max_deadline_s: 999, deadline_s: 4')}")
    assert "take effect after a restart: workers, limits.max_deadline_s" in caplog.text
    settings = watched.services.settings
    assert (settings.workers, settings.limits.max_deadline_s) == (1, 60)
    assert (settings.limits.items, settings.limits.deadline_s) == (5, 4)
    caplog.clear()
    await watched.look_at(START.replace("3", "5, max_deadline_s: 20"))
    assert watched.services.settings.limits.max_deadline_s == 20
    assert "restart" not in caplog.text


async def test_the_client_of_a_service_that_goes_outlives_requests_that_hold_it(watched: Watched) -> None:
    await watched.look_at(START.replace("''", "'127.0.0.1:9'"))
    with_reranking = watched.services
    assert watched.first.reranking is None
    assert with_reranking.reranking is not None
    await watched.look_at(START)
    assert watched.services.reranking is None
    # Requests that began before hold the client that was, until the longest deadline of any has passed.
    client = with_reranking.reranking
    assert [state.address for state in client.states()] == ["127.0.0.1:9"]
    await watched.reloader.close()
    assert client.states() == []


async def test_a_service_that_is_back_before_its_client_is_closed_has_the_same_again(watched: Watched) -> None:
    await watched.look_at(START.replace("''", "'127.0.0.1:9'"))
    client = watched.services.reranking
    assert client is not None
    await watched.look_at(START)
    await watched.look_at(START.replace("3", "4"))
    await watched.look_at(START.replace("''", "'127.0.0.1:8'"))
    assert watched.services.reranking is client
    await watched.reloader.close()
    assert [state.address for state in client.states()] == ["127.0.0.1:8"]


async def test_the_client_of_a_service_that_went_is_closed_in_the_end(watched: Watched) -> None:
    soon = START.replace("3", "3, max_deadline_s: 0.1").replace("''", "'127.0.0.1:9'")
    watched.path.write_text(soon)
    services, swapped = Services.open(GatewaySettings.load(), Draining()), list[Services]()
    client = services.reranking
    assert client is not None

    async def closed() -> bool:
        return client.states() == []

    reloader = Reloader(watched.path, services, swapped.append, watched.instruments)
    watched.path.write_text(START)
    await reloader.look()
    await until(closed)
    await reloader.close()
    await swapped[0].close()


async def test_a_client_that_refuses_its_settings_leaves_all_as_they_were(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(self: GPUClient, settings: ClientSettings) -> None:
        if settings.deadline_s == 9:
            raise RuntimeError(SECRET)

    monkeypatch.setattr(GPUClient, "reconfigure", refuse)
    watched.path.write_text(START.replace(":1'", ":2'") + "gpu: {deadline_s: 9}")

    async def refused() -> bool:
        return watched.services.reload_state.refused is not None

    async def mended() -> bool:
        return watched.services.settings.limits.items == 4

    running = asyncio.create_task(watched.reloader.run())
    try:
        await until(refused)
        assert watched.swapped == []
        assert [state.address for state in watched.first.embedding.states()] == ["127.0.0.1:1"]
        assert "RuntimeError" in caplog.text
        assert SECRET not in caplog.text
        # And the next change is looked at as any other.
        watched.path.write_text(START.replace("3", "4"))
        watched.reloader.ask()
        await until(mended)
        assert watched.services.reload_state.refused is None
    finally:
        running.cancel()


async def test_being_asked_as_it_ends_does_not_keep_it_from_ending(watched: Watched) -> None:
    running = asyncio.create_task(watched.reloader.run())
    await asyncio.sleep(0.2)
    watched.reloader.ask()
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=10)
    assert done


async def test_a_signal_has_it_looked_at_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gateway.yaml"
    monkeypatch.setattr(reloader, "SETTLE_S", 0.01)
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(path))
    never = "reload: {interval_s: 0}\n"
    path.write_text(never)
    application = WorkerApp(GatewaySettings.load())
    await application.open()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test") as http:

        async def document() -> dict[str, object]:
            answer: dict[str, object] = (await http.get("/openapi.json")).json()
            return answer

        async def counted(outcome: str) -> bool:
            return f'reloads_total{{outcome="{outcome}"}} 1.0' in (await http.get("/metrics")).text

        await until(partial(counted, "unchanged"))
        assert (await document())["security"] == []
        path.write_text(f"{never}auth: {{api_keys: [{SECRET}]}}")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(partial(counted, "applied"))
        assert (await document())["security"] != []
        assert (await http.get("/v1/models")).status_code == 401
    await application.close()
