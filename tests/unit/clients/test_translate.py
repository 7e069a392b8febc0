"""What gRPC raises becomes ours, against a real server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.settings import ClientSettings
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import (
    EmbeddingServiceServicer,
    add_EmbeddingServiceServicer_to_server,
)
from torchless.contracts.errors import ErrorKind, TorchlessError, invalid_input
from torchless.contracts.grpc_status import to_status
from torchless.contracts.types.v1.types_pb2 import Matrix

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[pb.GenerateEmbeddingsRequest, Context], Awaitable[pb.GenerateEmbeddingsResponse]]


class Scripted(EmbeddingServiceServicer):
    """Answers as the test says."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    async def GenerateEmbeddings(  # noqa: N802
        self, request: pb.GenerateEmbeddingsRequest, context: Context
    ) -> pb.GenerateEmbeddingsResponse:
        return await self._behaviour(request, context)


@asynccontextmanager
async def client_of(behaviour: Behaviour, **options: Any) -> AsyncIterator[EmbeddingClient]:
    server = grpc.aio.server()
    add_EmbeddingServiceServicer_to_server(Scripted(behaviour), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with EmbeddingClient(ClientSettings(address=f"127.0.0.1:{port}", **options)) as client:
            yield client
    finally:
        await server.stop(None)


async def error_of(behaviour: Behaviour, context: CallContext = CallContext(), **options: Any) -> TorchlessError:
    async with client_of(behaviour, **options) as client:
        with pytest.raises(TorchlessError) as caught:
            await client.embed(["a"], context=context)
    return caught.value


async def test_our_own_error_keeps_all_its_parts() -> None:
    async def refuse(request: pb.GenerateEmbeddingsRequest, context: Context) -> Any:
        sent = invalid_input(("texts", 0), "is strange", index="0")
        trailer = (("grpc-status-details-bin", to_status(sent).SerializeToString()),)
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, sent.message, trailer)

    error = await error_of(refuse)
    assert (error.kind, error.message) == (ErrorKind.INVALID_INPUT, "texts[0]: is strange")
    assert (error.violations[0].field, error.metadata) == ("texts[0]", {"index": "0"})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, ErrorKind.UNREACHABLE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorKind.OVERLOADED),
        (grpc.StatusCode.FAILED_PRECONDITION, ErrorKind.GPU_UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ErrorKind.DEADLINE),
        (grpc.StatusCode.UNIMPLEMENTED, ErrorKind.INTERNAL),
        # Said by whatever stands between, so not the fault of our caller.
        (grpc.StatusCode.INVALID_ARGUMENT, ErrorKind.INTERNAL),
        (grpc.StatusCode.PERMISSION_DENIED, ErrorKind.INTERNAL),
    ],
)
async def test_foreign_status_gets_a_kind_and_hides_its_details(code: grpc.StatusCode, kind: ErrorKind) -> None:
    async def abort(request: pb.GenerateEmbeddingsRequest, context: Context) -> Any:
        await context.abort(code, "ipv4:10.1.2.3:50051 /srv/secret")

    error = await error_of(abort)
    assert error.kind is kind
    assert "10.1.2.3" not in error.message
    assert "embedding service" in error.message


async def test_missing_service_is_unreachable_and_its_address_is_hidden() -> None:
    async with EmbeddingClient("127.0.0.1:1") as client:
        with pytest.raises(TorchlessError) as caught:
            await client.embed(["a"])
    assert caught.value.kind is ErrorKind.UNREACHABLE
    assert "127" not in caught.value.message


async def test_callers_deadline_overrides_the_default() -> None:
    async def never(request: pb.GenerateEmbeddingsRequest, context: Context) -> Any:
        await asyncio.sleep(60)

    error = await error_of(never, CallContext(deadline=Deadline.after(0.05)))
    assert error.kind is ErrorKind.DEADLINE
    assert (await error_of(never, deadline_s=0.05)).kind is ErrorKind.DEADLINE


async def test_answer_past_the_message_limit_says_to_send_fewer_inputs() -> None:
    async def huge(request: pb.GenerateEmbeddingsRequest, context: Context) -> pb.GenerateEmbeddingsResponse:
        return pb.GenerateEmbeddingsResponse(embeddings=Matrix(rows=1, dimensions=1, data=bytes(2 * 1024 * 1024)))

    error = await error_of(huge, connection={"max_message_mib": 1})
    assert error.kind is ErrorKind.INPUT_TOO_LARGE
    assert "send fewer" in error.message


async def test_context_travels_as_metadata() -> None:
    seen: dict[str, Any] = {}

    async def look(request: pb.GenerateEmbeddingsRequest, context: Context) -> pb.GenerateEmbeddingsResponse:
        seen.update(dict(context.invocation_metadata() or ()))
        return pb.GenerateEmbeddingsResponse(embeddings=Matrix(rows=0, dimensions=1))

    async with client_of(look) as client:
        await client.embed(["a"], context=CallContext(request_id="r1", tenant="t1", traceparent="00-1"))
    assert {k: seen[k] for k in ("x-request-id", "x-tenant-id", "traceparent")} == {
        "x-request-id": "r1",
        "x-tenant-id": "t1",
        "traceparent": "00-1",
    }


async def test_a_call_on_a_closed_client_is_unreachable() -> None:
    client = EmbeddingClient("127.0.0.1:1")
    await client.close()
    with pytest.raises(TorchlessError) as caught:
        await client.embed(["a"])
    assert caught.value.kind is ErrorKind.UNREACHABLE


async def test_cancelling_reaches_the_service() -> None:
    cancelled = asyncio.Event()
    entered = asyncio.Event()

    async def slow(request: pb.GenerateEmbeddingsRequest, context: Context) -> Any:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with client_of(slow) as client:
        call = asyncio.create_task(client.embed(["a"]))
        await asyncio.wait_for(entered.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(cancelled.wait(), 5)
