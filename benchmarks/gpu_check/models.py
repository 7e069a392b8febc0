"""The three models under test, as the bentos load them and as a program without services calls them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.inputs import Request
from benchmarks.gpu_check.plan import Plan
from benchmarks.systems.direct_models import (
    CrossEncoding,
    DirectModel,
    Embedding,
    LateInteraction,
    save_cross_encoder,
)
from bentos.embedding.embedder import Embedder, EmbedJob
from bentos.embedding.settings import EmbeddingSettings
from bentos.embedding.settings import ModelSettings as EmbeddingModelSettings
from bentos.embedding.torch_model import load as load_embedding
from bentos.reranking.model import Query
from bentos.reranking.reranker import Reranker, RerankJob
from bentos.reranking.settings import ModelSettings as RerankingModelSettings
from bentos.reranking.settings import RerankingSettings
from bentos.reranking.torch_model import load as load_reranking
from bentos.serving.batching import BatchingSettings

GPU_BATCHING = BatchingSettings(max_items=1024, padding_share=0.9, max_waiting_requests=4096)
"""What a GPU is served with: large batches, because padding costs it little."""
GPU_BATCH_TOKENS = 131_072


class Served(Protocol):
    """A model behind our batcher, in this process."""

    async def answer(self, request: Request) -> NDArray[np.float32]:
        """Vectors, shape (texts, dimensions), or raw scores, shape (documents, 1)."""

    async def __aenter__(self) -> Self:
        """Starts the device's thread and warms up."""

    async def __aexit__(self, *error: object) -> None:
        """Stops the thread."""


class ServedEmbedding:
    """all-MiniLM-L6-v2 as the embedding bento serves it."""

    def __init__(self, plan: Plan, dtype: str) -> None:
        model = EmbeddingModelSettings.model_validate(_model(plan, dtype, plan.weights))
        settings = EmbeddingSettings(models=(model,), batching=GPU_BATCHING, warm_up_batches=1)
        self._embedder = Embedder([load_embedding(model)], settings)

    async def answer(self, request: Request) -> NDArray[np.float32]:
        """See `Served`."""
        return (await self._embedder.embed(EmbedJob(texts=request.texts))).vectors

    async def __aenter__(self) -> Self:
        """See `Served`."""
        await self._embedder.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        """See `Served`."""
        await self._embedder.stop()


class ServedReranker:
    """A reranker as the reranking bento serves it; raw scores."""

    def __init__(self, plan: Plan, dtype: str, kind: str) -> None:
        weights = plan.weights if kind == "late_interaction" else str(cross_encoder_folder(plan))
        model = RerankingModelSettings.model_validate({**_model(plan, dtype, weights), "kind": kind})
        settings = RerankingSettings(models=(model,), batching=GPU_BATCHING, warm_up_batches=1)
        self._reranker = Reranker([load_reranking(model)], settings)

    async def answer(self, request: Request) -> NDArray[np.float32]:
        """See `Served`."""
        job = RerankJob([Query(request.query, request.texts)], form="raw")
        return (await self._reranker.rerank(job)).queries[0].scores[:, np.newaxis]

    async def __aenter__(self) -> Self:
        """See `Served`."""
        await self._reranker.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        """See `Served`."""
        await self._reranker.stop()


EMBEDDING, LATE_INTERACTION, CROSS_ENCODER = "embedding", "late interaction", "cross-encoder"
NAMES: Sequence[str] = (EMBEDDING, LATE_INTERACTION, CROSS_ENCODER)
"""The models under test."""


def served(name: str, plan: Plan, dtype: str) -> Served:
    """The model behind our batcher, on the device of the plan."""
    if name == EMBEDDING:
        return ServedEmbedding(plan, dtype)
    return ServedReranker(plan, dtype, "late_interaction" if name == LATE_INTERACTION else "cross_encoder")


def direct(name: str, plan: Plan, device: str, dtype: str) -> DirectModel:
    """The same model, called by sentence-transformers."""
    if name == EMBEDDING:
        return Embedding(plan.weights, device, dtype)
    if name == LATE_INTERACTION:
        return LateInteraction(plan.weights, device, dtype)
    return CrossEncoding(cross_encoder_folder(plan), device, dtype)


def cross_encoder_folder(plan: Plan) -> Path:
    """A cross-encoder with the size of MiniLM and random weights, the same in each stage."""
    folder = Path(plan.folder) / "cross-encoder"
    if not (folder / "config.json").exists():
        save_cross_encoder(folder, Path(plan.weights))
    return folder


def _model(plan: Plan, dtype: str, weights: str) -> dict[str, object]:
    return {
        "id": "checked",
        "path": weights,
        "device": plan.device,
        "dtype": dtype,
        "max_batch_tokens": GPU_BATCH_TOKENS,
    }
