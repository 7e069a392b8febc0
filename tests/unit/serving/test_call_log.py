"""The line of each call, of a service over real gRPC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import grpc
import pytest

from bentos.embedding.call_facts import describe
from bentos.serving.interceptor import CallInterceptor
from bentos.serving.readiness import Readiness
from tests.waiting import until
from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingClient, EmbedOptions
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import (
    EmbeddingServiceServicer,
    EmbeddingServiceStub,
    add_EmbeddingServiceServicer_to_server,
)
from torchless.contracts.errors import ErrorKind, ResourceType, TorchlessError, invalid_input, not_found
from torchless.contracts.grpc_status import to_status
from torchless.contracts.types.v1.types_pb2 import Matrix, Timings
from torchless.settings import LogSettings
from torchless.telemetry.log_format import JSONFormatter

Context = grpc.aio.ServicerContext[Any, Any]
TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "what a caller sent"


class Servicer(EmbeddingServiceServicer):
    """Answers each text by what it says."""

    async def GenerateEmbeddings(  # noqa: N802
        self, request: pb.GenerateEmbeddingsRequest, context: Context
    ) -> pb.GenerateEmbeddingsResponse:
        match request.texts[0]:
            case "defect":
                raise ValueError(SECRET)
            case "unknown":
                raise not_found(ResourceType.MODEL, request.model, SECRET)
            case "busy":
                raise TorchlessError(ErrorKind.OVERLOADED, "too much waits")
            case "never":
                await asyncio.Event().wait()
        return response(len(request.texts))

    async def StreamEmbeddings(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamEmbeddingsRequest], context: Context
    ) -> AsyncIterator[pb.StreamEmbeddingsResponse]:
        async for frame in request_iterator:
            if frame.request.texts[0] == "bad":
                yield pb.StreamEmbeddingsResponse(
                    sequence=frame.sequence, error=to_status(invalid_input("texts", SECRET))
                )
            else:
                yield pb.StreamEmbeddingsResponse(sequence=frame.sequence, response=response(len(frame.request.texts)))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        if kind := dict(context.invocation_metadata() or ()).get("x-tenant-id"):
            raise TorchlessError(ErrorKind(str(kind)), "as the caller wants")
        return pb.ListModelsResponse()


def response(count: int) -> pb.GenerateEmbeddingsResponse:
    return pb.GenerateEmbeddingsResponse(
        model="a/b",
        embeddings=Matrix(data=b"\0\0\0\0" * count, rows=count, dimensions=1),
        token_counts=[3] * count,
        timings=Timings(queue_ms=1.5, tokenization_ms=0.25, inference_ms=2.0, total_ms=4.0),
    )


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[EmbeddingClient]:
    readiness = Readiness()
    readiness.become_ready()
    log = LogSettings(**settings)
    interceptor = CallInterceptor(readiness, log=lambda: log, describe=describe)
    server = grpc.aio.server(interceptors=[interceptor])
    add_EmbeddingServiceServicer_to_server(Servicer(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with EmbeddingClient(f"127.0.0.1:{port}") as client:
            yield client
    finally:
        await server.stop(None)


@pytest.fixture(autouse=True)
def _at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "torchless.call")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of each line, with its level, and without its duration."""
    found = []
    for record in caplog.records:
        if record.name == "torchless.call":
            fields = dict(record.fields)  # type: ignore[attr-defined]
            assert fields.pop("total_ms") >= 0
            found.append({"level": record.levelname, **fields})
    return found


async def fails(client: EmbeddingClient, text: str, model: str = "") -> None:
    with pytest.raises(TorchlessError):
        await client.embed([text], EmbedOptions(model=model), CallContext("id-1"))


async def test_call_gets_a_line_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as client:
        context = CallContext("id-1", "acme", f"00-{TRACE}-b7ad6b7169203331-01")
        await client.embed(["a", "b"], context=context)
    assert lines(caplog) == [
        {
            "level": "INFO",
            "request_id": "id-1",
            "trace_id": TRACE,
            "tenant": "acme",
            "method": "GenerateEmbeddings",
            "model": "a/b",
            "items": 2,
            "tokens": 6,
            "status": "OK",
            "queue_ms": 1.5,
            "tokenization_ms": 0.25,
            "inference_ms": 2.0,
        }
    ]


@pytest.mark.parametrize(("kind", "level"), [("", "DEBUG"), ("LOADING", "DEBUG"), ("INTERNAL", "ERROR")])
async def test_polling_the_models_is_routine_also_while_they_load(
    caplog: pytest.LogCaptureFixture, kind: str, level: str
) -> None:
    async with serving() as client:
        with pytest.raises(TorchlessError) if kind else nullcontext():
            await client.list_models(CallContext("id-1", kind))
    found = [(line["level"], line.get("error", "")) for line in lines(caplog)]
    assert set(found) == {(level, kind)}


async def test_joined_call_lists_the_ids_of_its_requests(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as client:
        await client.embed(["a"], context=CallContext("id-1", other_request_ids=("id-2", "id-3")))
    (line,) = lines(caplog)
    assert line["request_ids"] == ["id-1", "id-2", "id-3"]
    assert "request_id" not in line


async def test_error_of_the_caller_has_its_kind_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as client:
        await fails(client, "unknown", "a/c")
    assert lines(caplog) == [
        {
            "level": "WARNING",
            "request_id": "id-1",
            "method": "GenerateEmbeddings",
            "model": "a/c",
            "items": 1,
            "status": "NOT_FOUND",
            "error": "NOT_FOUND",
        }
    ]


async def test_error_of_the_service_has_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as client:
        await fails(client, "busy")
    line = lines(caplog)[0]
    assert (line["level"], line["status"]) == ("WARNING", "RESOURCE_EXHAUSTED")
    assert (line["error"], line["reason"]) == ("OVERLOADED", "too much waits")


async def test_defect_is_one_line_with_the_stack(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as client:
        await fails(client, "defect")
    (record,) = (record for record in caplog.records if record.name == "torchless.call")
    assert (record.levelname, record.fields["status"]) == ("ERROR", "INTERNAL")  # type: ignore[attr-defined]
    assert record.exc_info
    assert record.exc_info[0] is ValueError


async def test_disconnected_caller_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(sample=0) as client:
        call = asyncio.create_task(client.embed(["never"], context=CallContext("id-1")))
        await asyncio.sleep(0.2)
        call.cancel()
        await until(lambda: bool(lines(caplog)), within_s=10)
    line = lines(caplog)[0]
    assert (line["level"], line["status"], line["request_id"]) == ("INFO", "CANCELLED", "id-1")


async def test_stream_is_one_line_with_sums(caplog: pytest.LogCaptureFixture) -> None:
    async def frames() -> AsyncIterator[list[str]]:
        for frame in (["a", "b"], ["bad"], ["c"]):
            yield frame

    async with serving(slow_ms=0) as client:
        async for _ in client.embed_stream(frames(), context=CallContext("id-1")):
            pass
        await until(lambda: bool(lines(caplog)), within_s=10)
    assert lines(caplog) == [
        {
            "level": "INFO",
            "request_id": "id-1",
            "method": "StreamEmbeddings",
            "model": "a/b",
            "items": 3,
            "tokens": 9,
            "refused": 1,
            "status": "OK",
            "queue_ms": 3.0,
            "tokenization_ms": 0.5,
            "inference_ms": 4.0,
        }
    ]


async def test_sampling_keeps_failures_and_slow_calls(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(sample=0, slow_ms=60_000) as client:
        await client.embed(["a"])
        await fails(client, "busy")
    assert [line["status"] for line in lines(caplog)] == ["RESOURCE_EXHAUSTED"]
    async with serving(sample=0, slow_ms=0) as client:
        await client.embed(["a"])
    assert [line["status"] for line in lines(caplog)] == ["RESOURCE_EXHAUSTED", "OK"]


async def test_nothing_that_a_caller_sent_is_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as client:
        await client.embed([SECRET])
        await client.embed([SECRET], EmbedOptions(model=SECRET, prompt_name=SECRET))
        await fails(client, "unknown", SECRET)
        await fails(client, "defect")
    assert len(lines(caplog)) == 4
    written = [JSONFormatter("embedding").format(record) for record in caplog.records]
    assert not [line for line in written if SECRET in line]


@pytest.mark.parametrize(
    ("given", "logged"),
    [
        ("a" * 129, None),
        (" ", None),
        (",,", None),
        ("a,,b", ["a", "b"]),
        (",".join(["a"] * 3000), ["a"] * 1024),
    ],
)
async def test_request_ids_of_any_caller_are_bounded(
    given: str, logged: list[str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as client:
        (state,) = client.states()
        async with grpc.aio.insecure_channel(state.address) as channel:
            stub: Any = EmbeddingServiceStub(channel)
            await stub.GenerateEmbeddings(
                pb.GenerateEmbeddingsRequest(texts=["a"]),
                metadata=(("x-request-id", given), ("x-tenant-id", "b" * 1000), ("traceparent", given[:100])),
            )
    line = lines(caplog)[0]
    assert line.get("request_ids") == logged
    assert "request_id" not in line
    assert "trace_id" not in line
    assert line["tenant"] == "b" * 128
