"""Bulk streams: each frame is answered once and in order, whatever becomes of the endpoints and of the source."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from tests.integration.clients.conftest import Connect, Serve
from tests.integration.clients.services import Service, Told, kind_of, within
from tests.integration.clients.test_calls import all_known
from tests.resilience.proxy import Proxy
from tests.waiting import until
from torchless.cli.free_ports import free_port
from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.endpoint_state import BreakerState, Health
from torchless.clients.settings import ClientSettings
from torchless.contracts.errors import ErrorKind, TorchlessError


async def numbered(count: int) -> AsyncIterator[list[str]]:
    """Frames that a service answers with their numbers."""
    for number in range(count):
        yield ["x" * number] if number else [""]


async def answers(
    client: EmbeddingClient,
    frames: AsyncIterator[list[str]],
    context: CallContext = CallContext(),
    seen: Callable[[int], None] = lambda number: None,
) -> list[int]:
    """The numbers of the frames in the order of their answers."""
    numbers = []
    async with aclosing(client.embed_stream(frames, context=context)) as stream:
        async for each in stream:
            assert not isinstance(each, TorchlessError)
            numbers.append(int(each.vectors[0][0]))
            seen(numbers[-1])
    return numbers


async def test_frames_are_answered_in_order(serve: Serve, connect: Connect) -> None:
    client = connect(*await serve(2))
    assert await answers(client, numbered(300)) == list(range(300))
    assert await answers(client, numbered(0)) == []


async def test_stream_survives_an_endpoint_that_drains_repeatedly(serve: Serve, connect: Connect) -> None:
    services = await serve(2)
    for service in services:
        service.servicer.leave_after = 7
    client = connect(*services, retry={"base_s": 0.001}, breaker={"failures": 100})
    assert await answers(client, numbered(100)) == list(range(100))


@pytest.mark.parametrize("seed", range(4))
async def test_stream_survives_endpoints_that_die_and_return(serve: Serve, connect: Connect, seed: int) -> None:
    chance = random.Random(seed)
    services: list[Service] = await serve(3)
    for service in services:
        service.servicer.delay_s = 0.001
    client = connect(*services, retry={"base_s": 0.01}, breaker={"open_s": 0.05}, connection=QUICK_RECONNECT)
    done = asyncio.Event()

    async def trouble() -> None:
        while not done.is_set():
            service = chance.choice(services)
            await service.stop(chance.choice([None, 0.01]))
            await asyncio.sleep(chance.uniform(0, 0.05))
            await service.start()
            await asyncio.sleep(chance.uniform(0, 0.05))

    troubled = asyncio.ensure_future(trouble())

    async def frames() -> AsyncIterator[list[str]]:
        async for frame in numbered(300):
            await asyncio.sleep(chance.choice([0, 0, 0, 0.005]))
            yield frame

    try:
        assert await answers(client, frames()) == list(range(300))
    finally:
        done.set()
        await troubled


async def test_stream_survives_connection_resets(serve: Serve, connect: Connect) -> None:
    (service,) = await serve(1)
    async with Proxy(service.port) as proxy:
        client = connect(proxy.address, retry={"base_s": 0.01}, breaker={"failures": 1000}, connection=QUICK_RECONNECT)

        def reset(number: int) -> None:
            if number % 40 == 13:
                proxy.reset_all()

        assert await answers(client, numbered(200), seen=reset) == list(range(200))
        assert proxy.resets


class TestTheSource:
    async def test_slow_source_loses_and_repeats_no_frame_when_the_endpoint_dies(
        self, serve: Serve, connect: Connect
    ) -> None:
        services: list[Service] = await serve(3)
        client = connect(*services, retry={"base_s": 0.001})
        await all_known(client)
        go_on = asyncio.Event()

        async def frames() -> AsyncIterator[list[str]]:
            async for frame in numbered(30):
                if len(frame[0]) % 10 == 5:
                    await go_on.wait()
                    go_on.clear()
                yield frame

        got: list[int] = []
        stream = asyncio.ensure_future(answers(client, frames(), seen=got.append))
        tasks = 0
        for number in (5, 15, 25):
            await until(lambda number=number: len(got) == number)
            for service in services:
                if service.servicer.streams and number < 25:
                    await service.stop()
            await until(lambda: not any(service.servicer.streams for service in services) or len(got) == 25)
            tasks = max(tasks, len(asyncio.all_tasks()))
            go_on.set()
        assert await stream == list(range(30))

    async def test_error_of_the_source_comes_after_the_answers(self, serve: Serve, connect: Connect) -> None:
        client = connect(*await serve(1))
        got: list[int] = []

        async def frames() -> AsyncIterator[list[str]]:
            async for frame in numbered(3):
                yield frame
            raise LookupError("no more")

        with pytest.raises(LookupError):
            await answers(client, frames(), seen=got.append)
        assert got == [0, 1, 2]

    async def test_invalid_first_frame_is_an_invalid_input_error(self, serve: Serve, connect: Connect) -> None:
        client = connect(*await serve(1))

        async def frames() -> AsyncIterator[list[str]]:
            yield ["\ud800"]

        assert await kind_of(answers(client, frames())) is ErrorKind.INVALID_INPUT

    async def test_cancelled_source_does_not_hang_the_stream(self, serve: Serve, connect: Connect) -> None:
        client = connect(*await serve(1))

        async def frames() -> AsyncIterator[list[str]]:
            yield ["a"]
            raise asyncio.CancelledError

        stream = asyncio.ensure_future(answers(client, frames()))
        await asyncio.wait({stream}, timeout=10)
        assert stream.cancelled()

    async def test_source_is_closed_when_the_caller_leaves(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(service)
        stopped = asyncio.Event()

        async def frames() -> AsyncIterator[list[str]]:
            try:
                yield ["a"]
                await asyncio.Event().wait()
            finally:
                stopped.set()

        async with aclosing(client.embed_stream(frames())) as stream:
            async for _ in stream:
                break
        assert stopped.is_set()
        await until(lambda: not service.servicer.streams)
        assert client.states()[0].calls_in_flight == 0

    async def test_idle_source_holds_no_half_open_probe(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(service, breaker={"open_s": 0.05, "failures": 1}, retry={"attempts": 1})
        service.servicer.failure = TorchlessError(ErrorKind.UNREACHABLE, "not ready")
        assert await kind_of(client.embed(["a"])) is ErrorKind.UNREACHABLE
        service.servicer.failure = None
        go_on = asyncio.Event()

        async def frames() -> AsyncIterator[list[str]]:
            await go_on.wait()
            yield ["a"]

        stream = asyncio.ensure_future(answers(client, frames()))
        await asyncio.sleep(0.06)
        assert await kind_of(client.embed(["a"])) is None
        go_on.set()
        assert await stream == [1]

    async def test_silence_of_the_source_does_not_count_as_idle_time(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(
            service,
            retry={"stream_idle_timeout_s": 1, "base_s": 0.01, "max_s": 0.1},
            breaker={"failures": 1000},
            connection={"reconnect_max_s": 0.05},
        )

        starting = asyncio.Event()

        async def frames() -> AsyncIterator[list[str]]:
            yield ["a"]
            await asyncio.sleep(1.2)
            await service.stop()
            asyncio.get_running_loop().call_later(0.1, starting.set)
            yield ["bb"]
            yield ["ccc"]

        async def start() -> None:
            await starting.wait()
            await service.start()

        assert (await asyncio.gather(answers(client, frames()), start()))[0] == [1, 2, 3]

    async def test_deadline_ends_the_wait_for_the_source(self, serve: Serve, connect: Connect) -> None:
        client = connect(*await serve(1))

        async def frames() -> AsyncIterator[list[str]]:
            await asyncio.Event().wait()
            yield ["a"]

        assert await kind_of(answers(client, frames(), within(0.05))) is ErrorKind.DEADLINE


class TestEndpoints:
    async def test_draining_endpoint_gets_no_new_frames(self, serve: Serve, connect: Connect) -> None:
        services: list[Service] = await serve(2)
        client = connect(*services)
        await all_known(client)
        go_on = asyncio.Event()

        async def frames() -> AsyncIterator[list[str]]:
            async for frame in numbered(20):
                if len(frame[0]) == 10:
                    await go_on.wait()
                yield frame

        got: list[int] = []
        stream = asyncio.ensure_future(answers(client, frames(), seen=got.append))
        await until(lambda: len(got) == 10)
        at = next(number for number, service in enumerate(services) if service.servicer.streams)
        await services[at].tell(serving=False)
        await until(lambda: client.states()[at].health is Health.NOT_SERVING)
        go_on.set()
        assert await stream == list(range(20))
        assert services[at].servicer.frames == list(range(10))
        assert services[1 - at].servicer.frames == list(range(10, 20))

    async def test_stream_prefers_endpoints_that_were_not_tried(self, serve: Serve, connect: Connect) -> None:
        bad, good = await serve(2)
        bad.servicer.failure = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "no device")
        client = connect(bad, good, retry={"base_s": 0.001})
        await all_known(client)
        for _ in range(20):
            before = bad.servicer.begun
            assert await answers(client, numbered(1)) == [0]
            assert bad.servicer.begun - before <= 1

    async def test_stream_tries_each_of_many_failing_endpoints(self, serve: Serve, connect: Connect) -> None:
        services: list[Service] = await serve(4)
        for service in services[1:]:
            service.servicer.failure = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "no device")
        client = connect(*services, retry={"base_s": 0.001})
        await all_known(client)
        for _ in range(20):
            before = [service.servicer.begun for service in services]
            assert await answers(client, numbered(1)) == [0]
            assert all(service.servicer.begun - at <= 1 for service, at in zip(services, before, strict=True))

    async def test_stream_without_healthy_endpoints_backs_off(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(service)
        await all_known(client)
        await service.tell(serving=False)
        await until(lambda: client.states()[0].health is Health.NOT_SERVING)
        assert await answers(client, numbered(5)) == list(range(5))
        assert len(service.servicer.frames) == 5

    async def test_stream_survives_an_outage_shorter_than_the_idle_timeout(
        self, serve: Serve, connect: Connect
    ) -> None:
        services: list[Service] = await serve(2)
        client = connect(
            *services,
            retry={"base_s": 0.01, "max_s": 0.05},
            breaker={"open_s": 0.1},
            connection=QUICK_RECONNECT,
        )
        got: list[int] = []
        for service in services:
            service.servicer.delay_s = 0.005
        stream = asyncio.ensure_future(answers(client, numbered(60), seen=got.append))
        await until(lambda: len(got) > 10)
        for service in services:
            await service.stop()
        await asyncio.sleep(0.1)
        assert not stream.done()
        for service in services:
            await service.start()
        assert await stream == list(range(60))

    async def test_stream_fails_after_an_outage_longer_than_the_idle_timeout(self, connect: Connect) -> None:
        client = connect(
            f"127.0.0.1:{free_port()}",
            retry={"stream_idle_timeout_s": 0.2, "base_s": 0.01, "max_s": 0.05},
            breaker={"failures": 1000},
        )
        assert await kind_of(answers(client, numbered(5))) is ErrorKind.UNREACHABLE

    @pytest.mark.parametrize("kind", [ErrorKind.INTERNAL, ErrorKind.INVALID_INPUT, ErrorKind.NOT_FOUND])
    async def test_internal_error_ends_the_stream(self, serve: Serve, connect: Connect, kind: ErrorKind) -> None:
        (service,) = await serve(1)
        service.servicer.failure = TorchlessError(kind, "no")
        client = connect(service)
        assert await kind_of(answers(client, numbered(5))) is kind

    async def test_deadline_covers_all_attempts_of_a_stream(self, serve: Serve, connect: Connect) -> None:
        services = await serve(2)
        for service in services:
            service.servicer.delay_s = 0.02
            service.servicer.leave_after = 3
        client = connect(*services, retry={"base_s": 0.001}, breaker={"failures": 1000})
        context = within(0.3)
        # The last failure, where there is no time left for the pause after it.
        kind = await kind_of(answers(client, numbered(1000), context))
        assert kind in {ErrorKind.DEADLINE, ErrorKind.UNREACHABLE}
        assert [each.breaker for each in client.states()] == [BreakerState.CLOSED] * 2

    async def test_two_streams_are_independent(self, serve: Serve, connect: Connect) -> None:
        services = await serve(2)
        for service in services:
            service.servicer.leave_after = 5
        client = connect(*services, retry={"base_s": 0.001}, breaker={"failures": 1000})
        both = await asyncio.gather(answers(client, numbered(60)), answers(client, numbered(40)))
        assert both == [list(range(60)), list(range(40))]


QUICK_LOOK = {"interval_s": 0.05, "timeout_s": 0.1}
QUICK_RECONNECT = {"reconnect_max_s": 0.1}


class TestSilence:
    @pytest.mark.parametrize("size", [1, 500_000])
    async def test_silent_stream_of_a_healthy_endpoint_ends_with_deadline(
        self, serve: Serve, connect: Connect, size: int
    ) -> None:
        (service,) = await serve(1)
        service.servicer.delay_s = 1000
        client = connect(
            service, retry={"stream_idle_timeout_s": 0.3}, endpoint_health=QUICK_LOOK, breaker={"failures": 1}
        )

        async def frames() -> AsyncIterator[list[str]]:
            for _ in range(20):  # of the large ones most wait to be written
                yield ["x" * size]

        with pytest.raises(TorchlessError, match=r"sent no answer for 0\.3 s") as raised:
            await answers(client, frames())
        assert raised.value.kind is ErrorKind.DEADLINE
        await until(lambda: service.servicer.cancelled == 1)
        (state,) = client.states()
        assert (state.health, state.breaker, state.calls_in_flight) == (Health.SERVING, BreakerState.OPEN, 0)

    @pytest.mark.parametrize("size", [1, 500_000])
    async def test_silent_stream_of_an_unreachable_endpoint_moves_on(
        self, serve: Serve, connect: Connect, size: int
    ) -> None:
        silent, well = await serve(2)
        silent.servicer.delay_s = 0.01
        async with Proxy(silent.port) as proxy:
            client = connect(proxy.address, endpoint_health=QUICK_LOOK, retry={"base_s": 0.001})
            await all_known(client)
            go_on = asyncio.Event()

            async def frames() -> AsyncIterator[list[str]]:
                for number in range(20):
                    if number == 10:
                        await go_on.wait()
                    yield ["x" * (number + size)]

            got: list[int] = []
            stream = asyncio.ensure_future(answers(client, frames(), seen=got.append))
            await until(lambda: len(got) == 10)
            proxy.black_hole = True
            go_on.set()
            both = {"address": f"{proxy.address},{well.address}", "endpoint_health": QUICK_LOOK}
            await client.reconfigure(ClientSettings.model_validate(both))
            assert await stream == [number + size for number in range(20)]
            assert client.states()[0].health is Health.UNREACHABLE
            assert well.servicer.frames == list(range(10, 20))

    async def test_silence_of_the_only_endpoint_is_tolerated_until_the_idle_timeout(
        self, serve: Serve, connect: Connect
    ) -> None:
        (service,) = await serve(1, Told.SILENCE)
        service.servicer.delay_s = 0.4
        client = connect(service, endpoint_health=QUICK_LOOK)
        assert await answers(client, numbered(4)) == list(range(4))
        assert client.states()[0].health is Health.UNREACHABLE
        assert service.servicer.frames == list(range(4))

    async def test_slow_endpoint_is_not_silent(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        service.servicer.delay_s = 0.2
        client = connect(service, retry={"stream_idle_timeout_s": 0.5}, endpoint_health=QUICK_LOOK)
        assert await answers(client, numbered(6)) == list(range(6))
        assert service.servicer.frames == list(range(6))

    async def test_idle_timeout_does_not_run_without_pending_requests(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(service, retry={"stream_idle_timeout_s": 0.2}, endpoint_health=QUICK_LOOK)

        async def frames() -> AsyncIterator[list[str]]:
            async for frame in numbered(4):
                yield frame
                await asyncio.sleep(0.25)

        assert await answers(client, frames()) == list(range(4))
        assert service.servicer.begun == 1

    async def test_idle_timeout_does_not_run_while_the_caller_is_busy(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(service, retry={"stream_idle_timeout_s": 0.2}, endpoint_health=QUICK_LOOK)
        got = []
        async with aclosing(client.embed_stream(numbered(6))) as stream:
            async for each in stream:
                assert not isinstance(each, TorchlessError)
                got.append(int(each.vectors[0][0]))
                await asyncio.sleep(0.25)
        assert got == list(range(6))
        assert service.servicer.begun == 1
