"""Embedding services over real gRPC in the test's own loop, that behave and misbehave as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_status import rpc_status

from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import SERVICE_NAME
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import (
    EmbeddingServiceServicer,
    add_EmbeddingServiceServicer_to_server,
)
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.grpc_status import HEALTH_REASON, to_status

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Told(StrEnum):
    """What a service has of `grpc.health.v1`."""

    ALL = "Check and Watch"
    CHECK = "Check, and no Watch"
    NOTHING = "no health service"
    SILENCE = "both, that never answer"
    ONCE = "both, and its Watch ends after each answer"
    REASON = "both, with the reason LOADING"
    GARBLED = "both, with a reason that cannot be read"


class _CheckOnly(health_aio.HealthServicer):
    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no Watch")


class _Silent(health_aio.HealthServicer):
    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        await asyncio.Event().wait()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        await asyncio.Event().wait()


class _WithReason(health_aio.HealthServicer):
    """Gives a reason with each answer, as the bentos do."""

    reason = TorchlessError(ErrorKind.LOADING, "the service is loading the model m; retry shortly")

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        context.set_trailing_metadata(((HEALTH_REASON, to_status(self.reason).SerializeToString()),))
        return await super().Check(request, context)


class _Garbled(_WithReason):
    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        context.set_trailing_metadata(((HEALTH_REASON, b"\xff\xff\xff"),))
        return await health_aio.HealthServicer.Check(self, request, context)


class _Once(health_aio.HealthServicer):
    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        await context.write(await self.Check(request, context))


_HEALTH = {Told.ALL: health_aio.HealthServicer, Told.CHECK: _CheckOnly, Told.SILENCE: _Silent, Told.ONCE: _Once}
_HEALTH |= {Told.REASON: _WithReason, Told.GARBLED: _Garbled}


class Servicer(EmbeddingServiceServicer):
    """Answers each text with a vector of its length, and notes what it sees."""

    def __init__(self) -> None:
        self.failure: TorchlessError | None = None
        """What calls are refused with."""
        self.delay_s = 0.0
        """Time before each answer, in seconds."""
        self.calls = 0
        self.texts: list[str] = []
        self.cancelled = 0
        self.waiting = 0
        self.leave_after: int | None = None
        """Frames of a stream after which it ends with UNAVAILABLE."""
        self.frames: list[int] = []
        """Sequences of the frames that came in."""
        self.streams = 0
        """Streams open now."""
        self.begun = 0
        """Streams so far."""

    async def GenerateEmbeddings(  # noqa: N802
        self, request: pb.GenerateEmbeddingsRequest, context: Any
    ) -> pb.GenerateEmbeddingsResponse:
        self.calls += 1
        self.texts.extend(request.texts)
        await self._wait()
        if self.failure is not None:
            await context.abort_with_status(rpc_status.to_status(to_status(self.failure)))
        return answer(list(request.texts))

    async def StreamEmbeddings(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamEmbeddingsRequest], context: Any
    ) -> AsyncIterator[pb.StreamEmbeddingsResponse]:
        self.streams += 1
        self.begun += 1
        answered = 0
        try:
            if self.failure is not None:
                await context.abort_with_status(rpc_status.to_status(to_status(self.failure)))
            async for frame in request_iterator:
                self.frames.append(frame.sequence)
                if self.leave_after is not None and answered >= self.leave_after:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "leaving")
                await self._wait()
                answered += 1
                yield pb.StreamEmbeddingsResponse(sequence=frame.sequence, response=answer(list(frame.request.texts)))
        finally:
            self.streams -= 1

    async def _wait(self) -> None:
        if not self.delay_s:
            return
        self.waiting += 1
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1


def answer(texts: list[str]) -> pb.GenerateEmbeddingsResponse:
    """A vector (length of the text, 1) a text."""
    vectors = np.array([[len(text), 1] for text in texts], np.float32)
    return pb.GenerateEmbeddingsResponse(
        model="m", revision="1", embeddings=matrix.to_message(vectors), token_counts=[1] * len(texts)
    )


class Service:
    """A server that comes and goes on one port.

    Args:
        told: What it has of the health service.
        port: Where it listens; 0: anywhere.
    """

    def __init__(self, told: Told = Told.ALL, *, port: int = 0) -> None:
        self.servicer = Servicer()
        self.port = port
        self._told = told
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        options = [("grpc.http2.min_ping_interval_without_data_ms", 5_000), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options)
        add_EmbeddingServiceServicer_to_server(self.servicer, self._server)  # type: ignore[no-untyped-call, unused-ignore]
        if self._told is not Told.NOTHING:
            self._health = _HEALTH[self._told]()
            await self._health.set(SERVICE_NAME, SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self, grace_s: float | None = None) -> None:
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    async def tell(self, *, serving: bool) -> None:
        """What its health says from now on."""
        await self._health.set(SERVICE_NAME, SERVING if serving else NOT_SERVING)


async def kind_of(call: Awaitable[Any]) -> ErrorKind | None:
    """The kind of the error that `call` ends with; None: it was answered."""
    try:
        await call
    except TorchlessError as error:
        return error.kind
    return None


def within(seconds: float) -> CallContext:
    """The context of a call whose caller waits `seconds` from now on."""
    return CallContext(deadline=Deadline.after(seconds))
