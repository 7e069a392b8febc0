"""What the service needs of a reranking model; the `torch_` files hold two kinds and alone know torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Kind = Literal["cross_encoder", "late_interaction"]
LongDocuments = Literal["cut", "cut_start", "windows", "refuse"]
"""What happens to what is too long: its end is dropped, its beginning is, it is read in windows, it is refused."""
ScoreForm = Literal["model", "raw", "unit"]
"""As the model's authors chose; without an activation; in [0, 1]."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts about a model that callers see."""

    id: str
    """Name that requests use."""
    revision: str
    """Pinned revision of the weights."""
    kind: Kind
    """How it compares."""
    max_tokens: int
    """Longest input in tokens, special tokens included: of query and document together for a cross-encoder, of each for
    late interaction."""
    max_tokens_per_doc: int
    """Tokens of a document that are read where a request does not say."""
    long_documents: LongDocuments
    """What happens to long documents where a request does not say."""
    device: str
    """Device that it runs on."""
    dtype: str
    """Type of its weights."""
    max_batch_tokens: int
    """Padded tokens of one batch."""
    created: int
    """Seconds since the Unix epoch when it was made ready."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A query with a document, or with a window of one, as the model reads them: one item of a batch."""

    ids: Sequence[int]
    """Token ids, special tokens included: the document's, for a cross-encoder joined with the query's."""
    type_ids: Sequence[int] = ()
    """For a cross-encoder: which of the two each token belongs to, 0 or 1."""
    query_ids: Sequence[int] = ()
    """For late interaction: the query's token ids."""

    @property
    def tokens(self) -> int:
        """Tokens that the model reads for it."""
        return len(self.ids) + len(self.query_ids)


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query with its documents, as the model reads them."""

    documents: list[list[Pair]]
    """For each document its windows, at least one."""
    query_tokens: int
    """Tokens of the query alone, special tokens included, before any cut; 0 where nothing was to be refused."""


class RerankingModel(Protocol):
    """A loaded model. Methods other than `score` may be called from any thread, at any time."""

    @property
    def info(self) -> ModelInfo:
        """Facts about it."""

    def encode(
        self, query: str, documents: Sequence[str], long_documents: LongDocuments, max_tokens_per_doc: int
    ) -> EncodedQuery:
        """Tokenizes. Every pair fits the model, unless `refuse`, which is left to the caller."""

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """One batch, called by one thread at a time.

        Returns:
            For each pair its float32 score without an activation; the higher, the more relevant.

        Raises:
            TorchlessError: GPU_UNAVAILABLE, when the device is gone.
        """

    def transform_scores(self, scores: NDArray[np.float32], form: ScoreForm) -> NDArray[np.float32]:
        """Scores of `score`, shape (documents,), in another form, in which their order is the same."""
