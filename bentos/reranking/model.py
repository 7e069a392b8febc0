"""The interface of a reranking model; the `torch_*` files implement two kinds and are the only ones to import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Kind = Literal["cross_encoder", "late_interaction"]
LongDocuments = Literal["cut", "cut_start", "windows", "refuse"]
"""Handling of long inputs: drop the end, drop the beginning, read in windows, or refuse."""
ScoreForm = Literal["model", "raw", "unit"]
"""With the model's own activation; without an activation; in [0, 1]."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts about a model that callers see."""

    id: str
    """Name that requests use."""
    revision: str
    """Fingerprint of what decides its scores."""
    kind: Kind
    """How it compares query and document."""
    max_tokens: int
    """Longest input in tokens, special tokens included: of query and document together for a cross-encoder, of each for
    late interaction."""
    max_tokens_per_doc: int
    """Most tokens of a document that are read, unless the request says otherwise."""
    long_documents: LongDocuments
    """Handling of long documents, unless the request says otherwise."""
    device: str
    """Device that it runs on."""
    dtype: str
    """Type of its weights."""
    max_batch_tokens: int
    """Token budget of one batch, padding included."""
    created: int
    """When the model was loaded, in seconds since the Unix epoch."""

    @property
    def summary(self) -> str:
        """The facts that an operator wants to see, in one line."""
        return (
            f"model {self.id}: revision {self.revision}, {self.device}, {self.dtype}, {self.kind}, "
            f"{self.max_tokens} tokens"
        )


@dataclass(frozen=True, slots=True)
class Query:
    """A query and its documents."""

    text: str
    documents: Sequence[str]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query with a document or a window of it, as token ids: one item of a batch."""

    ids: Sequence[int]
    """Token ids, special tokens included: of the document; for a cross-encoder, of query and document together."""
    type_ids: Sequence[int] = ()
    """For a cross-encoder: 0 for each token of the query, 1 for each of the document."""
    query_ids: Sequence[int] = ()
    """For late interaction: the query's token ids."""

    @property
    def tokens(self) -> int:
        """Number of tokens that the model reads."""
        return len(self.ids) + len(self.query_ids)


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query with its documents, as token ids."""

    documents: list[list[Pair]]
    """The windows of each document, at least one."""
    query_tokens: int
    """Tokens of the query alone, special tokens included, before truncation; 0 unless `refuse`."""
    truncated: frozenset[int] = frozenset()
    """Indices of the documents of which tokens were dropped."""
    query_truncated: bool = False
    """Whether tokens of the query were dropped, for at least one document."""


class RerankingModel(Protocol):
    """A loaded model. Methods other than `score` may be called from any thread, at any time."""

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""

    def encode(
        self, query: str, documents: Sequence[str], long_documents: LongDocuments, max_tokens_per_doc: int
    ) -> EncodedQuery:
        """Tokenizes. Every pair fits the model, except with `refuse`, where the caller checks the lengths.

        Raises:
            TextTooLongError: A very long text can only be tokenized as a whole.
        """

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """Computes one batch; called by one thread at a time.

        Returns:
            For each pair its float32 score without an activation; the higher, the more relevant.

        Raises:
            TorchlessError: GPU_UNAVAILABLE, when the device is lost.
        """

    def transform_scores(self, scores: NDArray[np.float32], form: ScoreForm) -> NDArray[np.float32]:
        """Transforms results of `score`, shape (documents,), to another form; the order stays the same."""
