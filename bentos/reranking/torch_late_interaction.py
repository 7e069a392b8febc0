"""Late interaction on torch: query and document read alone, their token vectors compared.

Khattab and Zaharia, "ColBERT: Efficient and effective passage search via contextualized late interaction over BERT",
2020 (https://arxiv.org/abs/2004.12832).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.util.similarity import maxsim_pairwise
from torch.nn.functional import normalize

from bentos.models.torch_device import inference_mode
from bentos.models.torch_padding import Padder
from bentos.models.torch_positions import positions, stated_length
from bentos.models.weights import longest_input, serialized_tokenizer
from bentos.reranking.model import EncodedQuery, LongDocuments, ModelInfo, Pair, ScoreForm
from bentos.reranking.model_info import model_info
from bentos.reranking.settings import ModelSettings
from bentos.reranking.tokenization import TruncatingTokenizer

_QUERY_TOKENS_KEPT = 16_384
"""Tokens of queries whose vectors are kept between batches, in all: 25 MB at 384 dimensions."""


class _Vectors(NamedTuple):
    """What the model makes of texts; every vector has length 1."""

    tokens: torch.Tensor
    """Shape (texts, longest, dimensions)."""
    mask: torch.Tensor
    """Shape (texts, longest): 1 for a token, 0 for padding."""
    pooled: torch.Tensor
    """Shape (texts, dimensions)."""


class _QueryVectors(NamedTuple):
    """What the model makes of one query."""

    tokens: torch.Tensor
    """Shape (tokens, dimensions)."""
    pooled: torch.Tensor
    """Shape (dimensions,)."""


class TorchLateInteraction:
    """A `SentenceTransformer` whose token vectors are compared; see `RerankingModel` for the methods.

    The score is the mean, weighted as set, of MaxSim over the query's tokens (the mean over them of the largest cosine
    with a token of the document) and of the cosine of the two pooled vectors: in [-1, 1].
    """

    def __init__(self, model: SentenceTransformer, settings: ModelSettings) -> None:
        self._modules: list[Any] = [module for module in model if not isinstance(module, Normalize)]
        max_tokens = longest_input(stated_length(model), settings, inputs_per_item=2, most=positions(model))
        self._tokenizer = TruncatingTokenizer(
            serialized_tokenizer(model.tokenizer, settings), max_tokens, settings.window_overlap_tokens, pairs=False
        )
        self._padder = Padder(model.tokenizer, torch.device(settings.device))
        total = settings.maxsim_weight + settings.embedding_weight
        self._maxsim_weight, self._pooled_weight = settings.maxsim_weight / total, settings.embedding_weight / total
        self._query_prefix = _prefix(settings.query_prefix, model, "query")
        self._document_prefix = _prefix(settings.document_prefix, model, "document")
        self._kept: dict[tuple[int, ...], _QueryVectors] = {}
        self._info = model_info(settings, max_tokens)

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        return self._info

    def encode(
        self, query: str, documents: Sequence[str], long_documents: LongDocuments, max_tokens_per_doc: int
    ) -> EncodedQuery:
        """See `RerankingModel`."""
        tokenizer = self._tokenizer
        texts = tokenizer.shortened(documents, max_tokens_per_doc, keep_end=long_documents == "cut_start")
        prefixed = [self._document_prefix + text for text in texts]
        encoded = tokenizer.encode(prefixed, long_documents)
        # A query is never read in windows: what its beginning asks is what is compared.
        ((asked,),) = tokenizer.encode([self._query_prefix + query], "refuse" if long_documents == "refuse" else "cut")
        return EncodedQuery(
            documents=[[Pair(window.ids, query_ids=asked.ids) for window in windows] for windows in encoded],
            query_tokens=len(asked.ids) if long_documents == "refuse" else 0,
        )

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """See `RerankingModel`."""
        asked = [tuple(pair.query_ids) for pair in pairs]
        with inference_mode():
            kept = self._queries(dict.fromkeys(asked))
            documents = self._read([pair.ids for pair in pairs])
            scores: list[float] = self._compare([kept[ids] for ids in asked], documents).cpu().tolist()
            return scores

    def transform_scores(self, scores: NDArray[np.float32], form: ScoreForm) -> NDArray[np.float32]:
        """See `RerankingModel`; `unit` is (1 + score) / 2."""
        if form != "unit":
            return scores
        # Rounding may leave a cosine a little outside of [-1, 1].
        unit: NDArray[np.float32] = np.clip((1 + scores) / 2, 0, 1)
        return unit

    def _queries(self, wanted: Collection[tuple[int, ...]]) -> dict[tuple[int, ...], _QueryVectors]:
        """Vectors of queries by their ids. The documents of one query share it, and come in several batches."""
        found = {ids: self._kept.pop(ids) for ids in wanted if ids in self._kept}
        if missing := [ids for ids in wanted if ids not in found]:
            read = self._read(missing)
            for row, ids in enumerate(missing):
                found[ids] = _QueryVectors(read.tokens[row][read.mask[row].bool()], read.pooled[row].clone())
        self._kept |= found  # those just used are the youngest
        tokens = sum(map(len, self._kept))
        while tokens > _QUERY_TOKENS_KEPT:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            tokens -= len(oldest)
        return found

    def _read(self, ids: Sequence[Sequence[int]]) -> _Vectors:
        features = self._padder.batch(ids)
        for module in self._modules:
            features = module(features)
        return _Vectors(
            normalize(features["token_embeddings"].float(), dim=-1),
            features["attention_mask"],
            normalize(features["sentence_embedding"].float(), dim=-1),
        )

    def _compare(self, queries: Sequence[_QueryVectors], documents: _Vectors) -> torch.Tensor:
        """Scores, shape (pairs,)."""
        pooled = torch.stack([query.pooled for query in queries])
        scores = self._pooled_weight * (pooled * documents.pooled).sum(dim=-1)
        if self._maxsim_weight:
            tokens = [query.tokens for query in queries]
            scores = scores + self._maxsim_weight * maxsim_pairwise(
                tokens, documents.tokens, None, documents.mask, length_normalize=True
            )
        return scores


def _prefix(wanted: str | None, model: SentenceTransformer, name: str) -> str:
    return (model.prompts.get(name) or "") if wanted is None else wanted
