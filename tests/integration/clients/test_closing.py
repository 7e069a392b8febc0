"""What is left of a client that is closed, or of endpoints that are taken away; and other settings under load."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from tests.integration.clients.conftest import Connect, Serve
from tests.integration.clients.services import Service, kind_of, within
from tests.integration.clients.test_calls import all_known
from tests.integration.clients.test_streams import answers, numbered
from tests.waiting import until
from torchless.cli.free_ports import free_port
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.endpoint_state import Health
from torchless.clients.gpu import GPUClient
from torchless.clients.request_joining import JoiningSettings
from torchless.clients.settings import ClientSettings
from torchless.contracts.errors import ErrorKind
from torchless.contracts.gpu.v1 import gpu_pb2
from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceServicer, add_GPUServiceServicer_to_server


def lists(*services: Service | str, **settings: Any) -> ClientSettings:
    addresses = [each if isinstance(each, str) else each.address for each in services]
    return ClientSettings(address=",".join(addresses), **{"slow_start_s": 0, "deadline_s": 10, **settings})


class TestClosing:
    async def test_calls_in_flight_end_with_unreachable_on_close(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        service.servicer.delay_s = 30
        client = connect(service)
        calls = [asyncio.ensure_future(client.embed(["a"])) for _ in range(5)]
        await until(lambda: service.servicer.waiting == 5)
        await client.close()
        assert [await kind_of(call) for call in calls] == [ErrorKind.UNREACHABLE] * 5
        await until(lambda: service.servicer.cancelled == 5)

    async def test_requests_waiting_for_a_joined_call_end_with_unreachable_on_close(
        self, serve: Serve, connect: Connect
    ) -> None:
        (service,) = await serve(1)
        service.servicer.delay_s = 30
        client = connect(service)
        client.join(JoiningSettings())
        calls = [asyncio.ensure_future(client.embed(["a"])) for _ in range(5)]
        await until(lambda: service.servicer.waiting == 1)
        await client.close()
        assert [await kind_of(call) for call in calls] == [ErrorKind.UNREACHABLE] * 5

    async def test_ready_ends_with_unreachable_on_close(self, connect: Connect) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            client = connect(f"127.0.0.1:{silent.getsockname()[1]}")
            asked = asyncio.ensure_future(client.ready())
            await asyncio.sleep(0.02)
            await client.close()
            assert await kind_of(asked) is ErrorKind.UNREACHABLE

    async def test_caller_cancelled_during_close_is_cancelled(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        service.servicer.delay_s = 30
        client = connect(service)
        call = asyncio.ensure_future(client.embed(["a"]))
        await until(lambda: service.servicer.waiting == 1)
        call.cancel()
        await client.close()
        await asyncio.wait({call})
        assert call.cancelled()

    async def test_bulk_stream_ends_at_once_on_close(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        service.servicer.delay_s = 0.01
        client = connect(service)
        got: list[int] = []
        stream = asyncio.ensure_future(answers(client, numbered(10_000), seen=got.append))
        await until(lambda: len(got) > 3)
        await client.close()
        async with asyncio.timeout(5):  # its patience is 60 s
            assert await kind_of(stream) is ErrorKind.UNREACHABLE
        await until(lambda: not service.servicer.streams)

    async def test_answer_stream_ends_on_close(self) -> None:
        class Watched(GPUServiceServicer):
            async def WatchStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
                yield gpu_pb2.WatchStatusResponse()
                await asyncio.Event().wait()

        server = grpc.aio.server()
        add_GPUServiceServicer_to_server(Watched(), server)  # type: ignore[abstract]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        client = GPUClient(f"127.0.0.1:{port}")
        seen = asyncio.Event()

        async def watch() -> None:
            async with aclosing(client.watch()) as updates:
                async for _ in updates:
                    seen.set()

        watching = asyncio.ensure_future(watch())
        await seen.wait()
        await client.close()
        async with asyncio.timeout(5):
            assert await kind_of(watching) is ErrorKind.UNREACHABLE
        await server.stop(None)

    async def test_client_may_be_closed_twice_and_before_it_starts(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(service)
        await client.close()
        await client.close()
        assert await kind_of(client.embed(["a"])) is ErrorKind.UNREACHABLE
        await client.reconfigure(lists(service))
        assert await kind_of(client.embed(["a"])) is ErrorKind.UNREACHABLE
        assert await kind_of(client.ready()) is ErrorKind.UNREACHABLE
        assert client.states() == []

    async def test_close_ends_calls_that_wait_for_a_retry(self, connect: Connect) -> None:
        client = connect(f"127.0.0.1:{free_port()}", retry={"base_s": 0.3}, breaker={"failures": 1000})
        calls = [asyncio.ensure_future(client.embed(["a"])) for _ in range(5)]
        await asyncio.sleep(0.05)
        await client.close()
        assert [await kind_of(call) for call in calls] == [ErrorKind.UNREACHABLE] * 5

    async def test_close_also_closes_leaving_endpoints(self, serve: Serve, connect: Connect) -> None:
        old, new = await serve(2)
        old.servicer.delay_s = 30
        client = connect(old)
        call = asyncio.ensure_future(client.embed(["a"]))
        await until(lambda: old.servicer.waiting == 1)
        await client.reconfigure(lists(new))
        await client.embed(["a"])
        assert not call.done()
        await client.close()
        assert await kind_of(call) is ErrorKind.UNREACHABLE
        await until(lambda: old.servicer.cancelled == 1)

    def test_program_that_forgets_to_close_gets_no_warnings(self) -> None:
        program = """
import asyncio, gc
from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingClient

async def main():
    client = EmbeddingClient("127.0.0.1:1,dns:///localhost:2")
    try:
        await client.embed(["a"])
    except Exception as error:
        print(error.kind)

asyncio.run(main())
gc.collect()
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout == "UNREACHABLE\n"
        assert not [line for line in done.stderr.splitlines() if "unreachable" not in line]


class TestOtherSettings:
    async def test_endpoints_added_and_removed_under_load_fail_no_call(self, serve: Serve, connect: Connect) -> None:
        services: list[Service] = await serve(4)
        for service in services:
            service.servicer.delay_s = 0.01
        client = connect(*services[:2])
        await all_known(client)
        stopped = asyncio.Event()

        async def calls() -> list[ErrorKind | None]:
            kinds = []
            while not stopped.is_set():
                kinds.append(await kind_of(client.embed(["a"])))
            return kinds

        load = asyncio.gather(*(calls() for _ in range(6)))
        for chosen in ([1, 2], [3], [0, 1, 2, 3], [2], [0, 1]):
            await client.reconfigure(lists(*(services[number] for number in chosen)))
            await asyncio.sleep(0.05)
        stopped.set()
        kinds = [kind for each in await load for kind in each]
        assert len(kinds) > 50
        assert set(kinds) == {None}
        assert {each.address for each in client.states()} == {services[0].address, services[1].address}

    async def test_calls_at_a_removed_endpoint_finish(self, serve: Serve, connect: Connect) -> None:
        old, new = await serve(2)
        old.servicer.delay_s = 0.3
        client = connect(old)
        calls = [asyncio.ensure_future(client.embed(["a"])) for _ in range(3)]
        await until(lambda: old.servicer.waiting == 3)
        await client.reconfigure(lists(new))
        assert [each.address for each in client.states()] == [new.address]
        assert [await kind_of(call) for call in calls] == [None] * 3
        assert new.servicer.calls == 0

    async def test_long_call_at_a_removed_endpoint_keeps_its_deadline(self, serve: Serve, connect: Connect) -> None:
        old, new = await serve(2)
        old.servicer.delay_s = 0.6
        client = connect(old)
        calls = [asyncio.ensure_future(client.embed(["a"], context=within(s))) for s in (0.4, 20)]
        await until(lambda: old.servicer.waiting == 2)
        await client.reconfigure(lists(new, deadline_s=0.1))
        assert [await kind_of(call) for call in calls] == [ErrorKind.DEADLINE, None]
        assert new.servicer.calls == 0

    async def test_removed_endpoint_is_closed_after_its_last_call(self, serve: Serve, connect: Connect) -> None:
        old, new = await serve(2)
        old.servicer.delay_s = 0.2
        client = connect(old)
        await all_known(client)
        await client.reconfigure(lists(old, new))
        call = asyncio.ensure_future(client.embed(["a"]))
        before = asyncio.all_tasks()
        await client.reconfigure(lists(new))
        (closing,) = (task for task in asyncio.all_tasks() - before if "leave" in repr(task.get_coro()))
        await call
        async with asyncio.timeout(5):
            await asyncio.wait({closing})

    @pytest.mark.parametrize("size", [1, 300_000])
    async def test_stream_leaves_a_removed_endpoint_after_its_pending_answers(
        self, serve: Serve, connect: Connect, size: int
    ) -> None:
        old, new = await serve(2)
        old.servicer.delay_s = 0.1
        client = connect(old)
        go_on, sent = asyncio.Event(), asyncio.Event()

        async def frames() -> AsyncIterator[list[str]]:
            for number in range(20):
                if number == 10:
                    sent.set()
                    await go_on.wait()
                yield ["x" * (number + size)]

        stream = asyncio.ensure_future(answers(client, frames()))
        await sent.wait()
        await until(lambda: bool(old.servicer.frames))
        await client.reconfigure(lists(new))
        go_on.set()
        assert await stream == [number + size for number in range(20)]
        assert old.servicer.frames + new.servicer.frames == list(range(20))
        assert old.servicer.frames[:10] == list(range(10))
        assert len(new.servicer.frames) >= 9  # one may have been on its way

    @pytest.mark.parametrize("size", [1, 500_000])
    async def test_stream_unanswered_at_a_removed_endpoint_moves_on_alone(
        self, serve: Serve, connect: Connect, size: int
    ) -> None:
        old, new = await serve(2)
        old.servicer.delay_s = 30
        client = connect(old)

        async def frames() -> AsyncIterator[list[str]]:
            for number in range(10):
                yield ["x" * (number + size)]

        stream = asyncio.ensure_future(answers(client, frames()))
        call = asyncio.ensure_future(client.embed(["a"], context=within(20)))
        await until(lambda: old.servicer.waiting == 2)
        await client.reconfigure(lists(new, deadline_s=0.2))
        assert await stream == [number + size for number in range(10)]
        assert not call.done()
        await client.close()
        assert await kind_of(call) is ErrorKind.UNREACHABLE

    async def test_endpoint_removed_and_added_at_once_is_used(self, serve: Serve, connect: Connect) -> None:
        first, second = await serve(2)
        first.servicer.delay_s = 0.2
        client = connect(first)
        call = asyncio.ensure_future(client.embed(["a"]))
        await until(lambda: first.servicer.waiting == 1)
        await client.reconfigure(lists(second))
        await client.reconfigure(lists(first))
        assert await kind_of(call) is None
        assert await kind_of(client.embed(["a"])) is None
        assert [each.address for each in client.states()] == [first.address]

    async def test_address_changes_from_name_to_list_and_back(self, serve: Serve, connect: Connect) -> None:
        first, second = await serve(2)
        client = connect(first)
        await client.embed(["a"])
        name = lists(f"dns:///127.0.0.1:{second.port}")
        await client.reconfigure(name)
        assert await kind_of(client.embed(["a"])) is None
        assert [each.address for each in client.states()] == [second.address]
        await client.reconfigure(lists(first, name.address))
        await until(lambda: len(client.states()) == 2)
        await client.reconfigure(lists(first))
        assert [each.address for each in client.states()] == [first.address]
        assert await kind_of(client.embed(["a"])) is None

    async def test_invalid_address_changes_nothing(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(service)
        with pytest.raises(ValueError, match="empty"):
            await client.reconfigure(lists(service).model_copy(update={"address": "", "deadline_s": 0.001}))
        assert await kind_of(client.embed(["a"])) is None

    async def test_many_reconfigurations_leave_nothing(self, serve: Serve, connect: Connect) -> None:
        first, second = await serve(2)
        client = connect(first, second)
        await all_known(client)
        tasks = len(asyncio.all_tasks())
        for _ in range(30):
            await client.reconfigure(lists(first))
            await client.embed(["a"])
            await client.reconfigure(lists(first, second))
            await client.embed(["a"])
        await until(lambda: {each.health for each in client.states()} == {Health.SERVING})
        await until(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_client_accepts_a_list_of_addresses(serve: Serve) -> None:
    services = await serve(2)
    async with EmbeddingClient(ClientSettings(address=[each.address for each in services])) as client:
        await client.embed(["a"])
        assert len(client.states()) == 2
