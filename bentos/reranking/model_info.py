"""Describes a model from its settings."""

from __future__ import annotations

import time

from bentos.models.fingerprint import fingerprint
from bentos.reranking.model import ModelInfo
from bentos.reranking.settings import ModelSettings


def model_info(settings: ModelSettings, max_tokens: int, weights: str, **facts: object) -> ModelInfo:
    """Facts about a model that was loaded just now.

    Args:
        settings: The model's settings.
        max_tokens: Longest input.
        weights: Version of its files.
        facts: What else decides its scores, for the fingerprint.
    """
    return ModelInfo(
        id=settings.id,
        revision=fingerprint(
            weights,
            backend="torch",
            kind=settings.kind,
            dtype=settings.dtype,
            max_tokens=max_tokens,
            max_tokens_per_doc=settings.max_tokens_per_doc,
            long_documents=settings.long_documents,
            window_overlap_tokens=settings.window_overlap_tokens,
            trust_remote_code=settings.trust_remote_code,
            **facts,
        ),
        kind=settings.kind,
        max_tokens=max_tokens,
        max_tokens_per_doc=settings.max_tokens_per_doc,
        long_documents=settings.long_documents,
        device=settings.device,
        dtype=settings.dtype,
        max_batch_tokens=settings.max_batch_tokens,
        created=int(time.time()),
    )
