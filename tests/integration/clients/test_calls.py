"""Calls at services that fail, leave and keep silent: what their callers see, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry

from tests.integration.clients.conftest import Connect, Serve
from tests.integration.clients.services import Service, kind_of, within
from tests.resilience.proxy import Proxy
from tests.waiting import until
from torchless.cli.free_ports import free_port
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.endpoint_state import BreakerState, Health
from torchless.contracts.errors import ErrorKind, TorchlessError, invalid_input

BUSY = TorchlessError(ErrorKind.OVERLOADED, "busy", retry_after_s=3)
NO_GPU = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "no device")


async def all_known(client: EmbeddingClient) -> None:
    """Once each endpoint has said something."""
    client.start()
    await until(lambda: all(each.health is not Health.UNKNOWN for each in client.states()))


def retries(registry: CollectorRegistry) -> float:
    found = [sample for metric in registry.collect() for sample in metric.samples]
    return sum(sample.value for sample in found if sample.name == "torchless_client_retries_total")


async def test_calls_are_spread_over_all_endpoints(serve: Serve, connect: Connect) -> None:
    services = await serve(3)
    client = connect(*services)
    await all_known(client)
    for service in services:
        service.servicer.delay_s = 0.005
    await asyncio.gather(*(client.embed(["a"]) for _ in range(90)))
    assert all(15 <= service.servicer.calls <= 45 for service in services)


async def test_endpoint_that_dies_under_load_fails_no_call(serve: Serve, connect: Connect) -> None:
    services = await serve(3)
    client = connect(*services)
    await all_known(client)

    async def calls() -> list[ErrorKind | None]:
        return [await kind_of(client.embed(["a"])) for _ in range(50)]

    load = asyncio.gather(*(calls() for _ in range(8)))
    await until(lambda: sum(service.servicer.calls for service in services) > 100)
    await services[1].stop()
    assert Counter(kind for kinds in await load for kind in kinds) == {None: 400}


async def test_endpoints_that_return_on_the_same_port_are_used_again(serve: Serve, connect: Connect) -> None:
    (service,) = await serve(1)
    client = connect(service, breaker={"open_s": 0.05}, connection={"reconnect_max_s": 0.1})
    for _ in range(3):
        await client.embed(["a"])
        await service.stop()
        while await kind_of(client.embed(["a"])) is not ErrorKind.CIRCUIT_OPEN:
            pass
        await service.start()

        async with asyncio.timeout(10):
            while await kind_of(client.embed(["a"])):  # noqa: ASYNC110  # it is the call that tells
                await asyncio.sleep(0.01)
    assert client.states()[0].breaker is BreakerState.CLOSED


async def test_rolling_restart_with_draining_fails_no_call(serve: Serve, connect: Connect) -> None:
    services = await serve(2)
    client = connect(*services, connection={"reconnect_max_s": 0.1})
    await all_known(client)
    stopped = asyncio.Event()

    async def calls() -> list[ErrorKind | None]:
        kinds = []
        while not stopped.is_set():
            kinds.append(await kind_of(client.embed(["a"])))
        return kinds

    load = asyncio.gather(*(calls() for _ in range(4)))
    for service in services:
        index = services.index(service)
        await service.tell(serving=False)
        await until(lambda index=index: client.states()[index].health is Health.NOT_SERVING)
        await service.stop(5)
        await service.start()
        await until(lambda index=index: client.states()[index].health is Health.SERVING)
    stopped.set()
    counts = Counter(kind for kinds in await load for kind in kinds)
    assert set(counts) == {None}


class TestElsewhere:
    @pytest.mark.parametrize("error", [BUSY, NO_GPU])
    async def test_refused_call_is_retried_on_one_other_endpoint(
        self, serve: Serve, connect: Connect, error: TorchlessError
    ) -> None:
        bad, good = await serve(2)
        client = connect(bad, good)
        await all_known(client)
        bad.servicer.failure = error
        assert {await kind_of(client.embed(["a"])) for _ in range(40)} == {None}
        assert [each.breaker for each in client.states()] == [BreakerState.CLOSED] * 2

    @pytest.mark.parametrize("error", [BUSY, NO_GPU])
    async def test_no_third_endpoint_is_tried_and_the_retry_hint_is_passed_on(
        self, serve: Serve, connect: Connect, error: TorchlessError
    ) -> None:
        services = await serve(3)
        client = connect(*services)
        await all_known(client)
        for service in services:
            service.servicer.failure = error
        with pytest.raises(TorchlessError) as caught:
            await client.embed(["a"])
        assert (caught.value.kind, caught.value.retry_after_s) == (error.kind, error.retry_after_s)
        assert sum(service.servicer.calls for service in services) == 2

    @pytest.mark.parametrize("error", [BUSY, NO_GPU])
    async def test_retry_budget_is_kept_without_another_endpoint(
        self, serve: Serve, connect: Connect, registry: CollectorRegistry, error: TorchlessError
    ) -> None:
        (service,) = await serve(1)
        client = connect(service, retry={"reserve": 2, "budget": 0, "base_s": 0})
        await all_known(client)
        service.servicer.failure = error
        assert [await kind_of(client.embed(["a"])) for _ in range(30)] == [error.kind] * 30
        assert service.servicer.calls == 30
        assert client.states()[0].breaker is BreakerState.CLOSED
        assert retries(registry) == 0
        # What was saved up is there for what it is for.
        service.servicer.failure = TorchlessError(ErrorKind.UNREACHABLE, "not ready")
        assert await kind_of(client.embed(["a"])) is ErrorKind.UNREACHABLE
        assert service.servicer.calls == 33
        assert retries(registry) == 2

    async def test_callers_fault_is_not_retried(self, serve: Serve, connect: Connect) -> None:
        services = await serve(2)
        client = connect(*services)
        await all_known(client)
        for service in services:
            service.servicer.failure = invalid_input(("texts", 0), "is strange")
        assert [await kind_of(client.embed(["a"])) for _ in range(20)] == [ErrorKind.INVALID_INPUT] * 20
        assert sum(service.servicer.calls for service in services) == 20
        assert [each.breaker for each in client.states()] == [BreakerState.CLOSED] * 2


class TestBudget:
    async def test_spent_retry_budget_ends_retries_and_is_counted(
        self, serve: Serve, connect: Connect, registry: CollectorRegistry
    ) -> None:
        (service,) = await serve(1)
        client = connect(service, retry={"reserve": 1, "budget": 0, "base_s": 0}, breaker={"failures": 1000})
        await all_known(client)
        service.servicer.failure = TorchlessError(ErrorKind.UNREACHABLE, "not ready")
        assert [await kind_of(client.embed(["a"])) for _ in range(5)] == [ErrorKind.UNREACHABLE] * 5
        assert service.servicer.calls == 6
        assert registry.get_sample_value("torchless_client_retries_denied_total", {"capability": "embedding"}) == 5


class TestDeadlines:
    @pytest.mark.parametrize("deadline_s", [0.0, -1.0])
    async def test_expired_deadline_makes_no_call(self, serve: Serve, connect: Connect, deadline_s: float) -> None:
        (service,) = await serve(1)
        client = connect(service)
        await all_known(client)
        context = within(deadline_s)
        assert await kind_of(client.embed(["a"], context=context)) is ErrorKind.DEADLINE
        assert service.servicer.calls == 0

    async def test_expired_deadline_is_no_probe(self, serve: Serve, connect: Connect) -> None:
        client = connect(f"127.0.0.1:{free_port()}", breaker={"open_s": 0.05})
        while await kind_of(client.embed(["a"])) is not ErrorKind.CIRCUIT_OPEN:
            pass
        await asyncio.sleep(0.06)
        assert await kind_of(client.embed(["a"], context=within(0.0))) is ErrorKind.DEADLINE
        assert client.states()[0].breaker is BreakerState.OPEN

    async def test_no_wait_outlasts_the_deadline(self, connect: Connect, registry: CollectorRegistry) -> None:
        client = connect(f"127.0.0.1:{free_port()}", retry={"base_s": 10, "max_s": 60, "attempts": 10})
        async with asyncio.timeout(5):
            kinds = [await kind_of(client.embed(["a"], context=within(0.02))) for _ in range(4)]
        assert set(kinds) <= {ErrorKind.UNREACHABLE, ErrorKind.DEADLINE}

    async def test_short_deadlines_do_not_open_the_breaker(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        service.servicer.delay_s = 5
        client = connect(service)
        await all_known(client)
        kinds = await asyncio.gather(*(kind_of(client.embed(["a"], context=within(0.1))) for _ in range(12)))
        assert set(kinds) == {ErrorKind.DEADLINE}
        assert client.states()[0].breaker is BreakerState.CLOSED
        await until(lambda: service.servicer.cancelled == 12)  # no service works any more


class TestSilence:
    async def test_silent_endpoint_gets_no_calls_until_it_answers_again(self, serve: Serve, connect: Connect) -> None:
        silent, good = await serve(2)
        async with Proxy(silent.port) as proxy:
            client = connect(proxy.address, good, endpoint_health={"timeout_s": 0.2})
            await all_known(client)
            proxy.black_hole = True
            while client.states()[0].health is Health.SERVING:
                await kind_of(client.embed(["a"], context=within(0.3)))
            assert client.states()[0].health is Health.UNREACHABLE
            before = good.servicer.calls
            assert {await kind_of(client.embed(["a"], context=within(0.3))) for _ in range(20)} == {None}
            assert good.servicer.calls == before + 20
            # Packets in the black hole are lost: the client has to connect again.
            proxy.black_hole = False
            proxy.reset_all()
            await until(lambda: client.states()[0].health is Health.SERVING)

    async def test_missed_long_deadlines_open_the_breaker(self, connect: Connect) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(-1)
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        client = connect(
            f"{host}:{port}",
            breaker={"deadline_counts_from_s": 0.05, "failures": 3},
            endpoint_health={"timeout_s": 0.1},
        )
        kinds = [await kind_of(client.embed(["a"], context=within(0.1))) for _ in range(4)]
        assert kinds[-1] is ErrorKind.CIRCUIT_OPEN
        await until(lambda: client.states()[0].health is Health.UNREACHABLE)
        await client.close()
        server.close()


class TestCallersThatHangUp:
    """Wherever a call is cancelled, it releases what it holds."""

    async def _hung_up(self, client: EmbeddingClient, turns: int) -> None:
        call = asyncio.ensure_future(client.embed(["a"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled() or call.exception() is None or isinstance(call.exception(), TorchlessError)

    async def test_call_cancelled_at_any_turn_of_the_loop_leaves_nothing(self, serve: Serve, connect: Connect) -> None:
        services = await serve(2)
        for service in services:
            service.servicer.delay_s = 0.005
        client = connect(*services)
        await all_known(client)
        for turns in range(80):
            await self._hung_up(client, turns)
        await until(lambda: not any(each.calls_in_flight for each in client.states()))
        await until(lambda: not any(service.servicer.waiting for service in services))
        assert await kind_of(client.embed(["a"])) is None

    async def test_cancelled_half_open_probe_frees_its_slot(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        service.servicer.delay_s = 0.2
        client = connect(service, breaker={"open_s": 0.001, "failures": 1})
        await all_known(client)
        (endpoint,) = client._pool.endpoints()
        for turns in range(40):
            ticket = endpoint.breaker.begin(10)
            assert ticket is not None
            ticket.failed(TorchlessError(ErrorKind.UNREACHABLE, "no"))
            if endpoint.breaker.state is BreakerState.CLOSED:  # the ticket was of a state before
                continue
            await asyncio.sleep(0.002)
            await self._hung_up(client, turns)
            assert endpoint.breaker.admits
        service.servicer.delay_s = 0
        assert await kind_of(client.embed(["a"])) is None
        assert endpoint.breaker.state is BreakerState.CLOSED

    async def test_a_thousand_cancelled_calls_leave_nothing(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        service.servicer.delay_s = 5
        client = connect(service, concurrency={"enabled": False})
        await all_known(client)
        tasks = len(asyncio.all_tasks())
        for _ in range(10):
            calls = [asyncio.ensure_future(client.embed(["a"])) for _ in range(100)]
            await until(lambda: service.servicer.waiting == 100)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert all(call.cancelled() for call in calls)
            assert client.states()[0].calls_in_flight == 0
            await until(lambda: service.servicer.waiting == 0)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_errors_are_freed_without_the_collector(serve: Serve, connect: Connect) -> None:
    (service,) = await serve(1)
    service.servicer.failure = TorchlessError(ErrorKind.UNREACHABLE, "not ready now")
    client = connect(service, breaker={"failures": 1000}, retry={"base_s": 0, "attempts": 2})
    await all_known(client)
    await kind_of(client.embed(["a"]))
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            await kind_of(client.embed(["a"]))
        kept = [each for each in gc.get_objects() if isinstance(each, TorchlessError)]
    finally:
        gc.enable()
    assert len([each for each in kept if each.message == "not ready now"]) <= 2  # the service's own, and one more


async def test_clients_of_one_process_are_independent(serve: Serve, connect: Connect) -> None:
    (service,) = await serve(1)
    clients = [connect(service) for _ in range(3)]
    for client in clients:
        await client.embed(["a"])
    await clients[0].close()
    assert await kind_of(clients[0].embed(["a"])) is ErrorKind.UNREACHABLE
    assert [await kind_of(client.embed(["a"])) for client in clients[1:]] == [None, None]
    assert isinstance(service, Service)
