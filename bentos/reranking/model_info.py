"""Describes a model from its settings."""

from __future__ import annotations

import time

from bentos.reranking.model import ModelInfo
from bentos.reranking.settings import ModelSettings


def model_info(settings: ModelSettings, max_tokens: int) -> ModelInfo:
    """Facts about a model that reads at most `max_tokens` and was loaded just now."""
    return ModelInfo(
        id=settings.id,
        revision=settings.revision,
        kind=settings.kind,
        max_tokens=max_tokens,
        max_tokens_per_doc=settings.max_tokens_per_doc,
        long_documents=settings.long_documents,
        device=settings.device,
        dtype=settings.dtype,
        max_batch_tokens=settings.max_batch_tokens,
        created=int(time.time()),
    )
