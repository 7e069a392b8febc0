"""Reading the caller's requests one at a time, and what a stream does with a service that miscounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from torchless.clients.embedding import EmbeddingClient
from torchless.clients.settings import ClientSettings
from torchless.clients.streams.resumable_stream import _END, _Source
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import (
    EmbeddingServiceServicer,
    add_EmbeddingServiceServicer_to_server,
)
from torchless.contracts.errors import ErrorKind, TorchlessError


async def taken(source: _Source[int]) -> Any:
    await asyncio.wait({source.coming()})
    return source.take()


async def counted(number: int) -> AsyncIterator[int]:
    for each in range(number):
        await asyncio.sleep(0)
        yield each


async def test_source_gives_each_request_once() -> None:
    source = _Source(counted(3))
    waits = [asyncio.ensure_future(asyncio.wait({source.coming()})) for _ in range(3)]
    await asyncio.gather(*waits)
    assert [source.take(), await taken(source), await taken(source)] == [0, 1, 2]
    assert [await taken(source) for _ in range(3)] == [_END] * 3
    source.raise_failure()


async def test_cancelled_wait_loses_no_request() -> None:
    go_on = asyncio.Event()

    async def requests() -> AsyncIterator[int]:
        await go_on.wait()
        yield 1

    source = _Source(requests())
    waiting = asyncio.ensure_future(asyncio.wait({source.coming()}))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    go_on.set()
    assert await taken(source) == 1


@pytest.mark.parametrize(
    "error", [LookupError("no"), TorchlessError(ErrorKind.INTERNAL, "no"), asyncio.CancelledError()]
)
async def test_source_failure_ends_the_stream_and_is_raised_after_it(error: BaseException) -> None:
    async def requests() -> AsyncIterator[int]:
        yield 1
        raise error

    source = _Source(requests())
    assert [await taken(source) for _ in range(3)] == [1, _END, _END]
    with pytest.raises(type(error)):
        source.raise_failure()


async def test_closing_stops_reading_without_warnings(caplog: pytest.LogCaptureFixture) -> None:
    stopped = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            stopped.set()

    async def broken() -> AsyncIterator[int]:
        raise LookupError
        yield 1

    for requests in (endless(), broken(), counted(0)):
        source = _Source(requests)
        source.coming()
        await asyncio.sleep(0.01)
        await source.close()
        del source
    assert stopped.is_set()
    assert not [record for record in caplog.records if "never retrieved" in record.getMessage()]


class Miscounting(EmbeddingServiceServicer):
    """Answers each frame so many times, and ends after so many frames."""

    def __init__(self, times: int, frames: int) -> None:
        self.times, self.frames, self.streams = times, frames, 0

    async def StreamEmbeddings(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        self.streams += 1
        if not self.frames:
            return
        seen = 0
        async for frame in request_iterator:
            for _ in range(self.times):
                yield pb.StreamEmbeddingsResponse(sequence=frame.sequence, response=pb.GenerateEmbeddingsResponse())
            seen += 1
            if seen == self.frames:
                return


async def outcome(service: Miscounting, frames: int, **retry: Any) -> int | ErrorKind:
    server = grpc.aio.server()
    add_EmbeddingServiceServicer_to_server(service, server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def source() -> AsyncIterator[list[str]]:
        for _ in range(frames):
            yield ["a"]

    address, retries = f"127.0.0.1:{port}", {"base_s": 0.001, **retry}
    settings = ClientSettings(address=address, retry=retries, breaker={"failures": 1000})  # type: ignore[arg-type]
    try:
        async with EmbeddingClient(settings) as client:
            return len([each async for each in client.embed_stream(source())])
    except TorchlessError as error:
        return error.kind
    finally:
        await server.stop(None)


async def test_more_answers_than_frames_are_an_internal_error() -> None:
    assert await outcome(Miscounting(times=2, frames=1), 1) is ErrorKind.INTERNAL


async def test_stream_goes_on_after_an_early_normal_end() -> None:
    service = Miscounting(times=1, frames=3)
    assert await outcome(service, 10) == 10
    assert service.streams >= 4


async def test_endpoint_that_ends_streams_without_answers_is_not_called_for_ever() -> None:
    service = Miscounting(times=1, frames=0)
    kind = await outcome(service, 3, stream_idle_timeout_s=0.2, base_s=0.02, max_s=0.05)
    assert kind is ErrorKind.UNREACHABLE
    assert service.streams < 200
