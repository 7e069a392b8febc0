"""Bytes that are no message are invalid input, on every method of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bentos.serving.health import HealthInterceptor
from bentos.serving.interceptor import CallInterceptor
from bentos.serving.readiness import Readiness
from torchless.clients.embedding import SERVICE_NAME
from torchless.clients.translate import translate
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import (
    EmbeddingServiceServicer,
    add_EmbeddingServiceServicer_to_server,
)
from torchless.contracts.errors import ErrorKind

NO_MESSAGE = b"\xff\xff\xff\xff"
NO_TEXT = b"\x0a\x02\xff\xfe"
"""A message whose first field is a string that is not UTF-8."""
UNARY = ["/grpc.health.v1.Health/Check", f"/{SERVICE_NAME}/GenerateEmbeddings", f"/{SERVICE_NAME}/Tokenize"]
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
STREAMS = [f"/{SERVICE_NAME}/StreamEmbeddings", REFLECTION]


class Echo(EmbeddingServiceServicer):
    """Answers every request with nothing, and every frame with its number."""

    async def GenerateEmbeddings(  # noqa: N802
        self, request: pb.GenerateEmbeddingsRequest, context: Any
    ) -> pb.GenerateEmbeddingsResponse:
        return pb.GenerateEmbeddingsResponse()

    async def Tokenize(self, request: pb.TokenizeRequest, context: Any) -> pb.TokenizeResponse:  # noqa: N802
        return pb.TokenizeResponse()

    async def StreamEmbeddings(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamEmbeddingsRequest], context: Any
    ) -> AsyncIterator[pb.StreamEmbeddingsResponse]:
        async for frame in requests:
            yield pb.StreamEmbeddingsResponse(sequence=frame.sequence)


@asynccontextmanager
async def serving() -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server with our interceptors, our servicer, and two services that are not ours."""
    readiness = Readiness()
    readiness.become_ready()
    server = grpc.aio.server(interceptors=[HealthInterceptor(SERVICE_NAME, readiness), CallInterceptor(readiness)])
    add_EmbeddingServiceServicer_to_server(Echo(), server)  # type: ignore[abstract]
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    reflection.enable_server_reflection([SERVICE_NAME], server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def assert_invalid(error: grpc.aio.AioRpcError, caplog: pytest.LogCaptureFixture) -> None:
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert translate(error, "some").kind is ErrorKind.INVALID_INPUT
    assert "grpc-status-details-bin" in error.trailing_metadata()
    text = error.details() or ""
    assert "message" in text
    assert not any(word in text for word in ("Error", "class", "google", "Parse"))
    # Our own line for the call may be there; a traceback of grpcio may not.
    assert [record for record in caplog.records if record.name.startswith(("grpc", "bentos"))] == []


@pytest.mark.parametrize("method", UNARY)
@pytest.mark.parametrize("raw", [NO_MESSAGE, NO_TEXT])
async def test_unreadable_requests_are_invalid_input(method: str, raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(raw, timeout=20)
    assert_invalid(caught.value, caplog)


@pytest.mark.parametrize("method", STREAMS)
async def test_unreadable_frames_are_invalid_input(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as channel:
        call: Any = channel.stream_stream(method)(timeout=20)
        await call.write(NO_MESSAGE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert_invalid(caught.value, caplog)


async def test_unreadable_health_watches_are_invalid_input(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as channel:
        watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
        call = watch(NO_MESSAGE, timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert_invalid(caught.value, caplog)


async def test_a_frame_after_answered_ones_may_be_unreadable() -> None:
    frame = pb.StreamEmbeddingsRequest(sequence=7).SerializeToString()
    async with serving() as channel:
        call: Any = channel.stream_stream(STREAMS[0])(timeout=20)
        await call.write(frame)
        assert pb.StreamEmbeddingsResponse.FromString(await call.read()).sequence == 7
        await call.write(NO_MESSAGE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_readable_requests_are_answered() -> None:
    async with serving() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
