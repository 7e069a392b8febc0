"""Late interaction on torch: reads query and document separately and compares their token vectors.

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
from bentos.reranking.tokenization import TruncatingTokenizer, truncated_documents


class _Vectors(NamedTuple):
    """Vectors of texts, each of length 1."""

    tokens: torch.Tensor
    """Shape (texts, longest, dimensions)."""
    mask: torch.Tensor
    """Shape (texts, longest): 1 for a token, 0 for padding."""
    pooled: torch.Tensor
    """Shape (texts, dimensions)."""


class _QueryVectors(NamedTuple):
    """Vectors of one query."""

    tokens: torch.Tensor
    """Shape (tokens, dimensions)."""
    pooled: torch.Tensor
    """Shape (dimensions,)."""


class TorchLateInteraction:
    """Compares the token vectors of a `SentenceTransformer`; see `RerankingModel` for the methods.

    The score, in [-1, 1], is the weighted mean of two values: MaxSim, which is the mean over the query's tokens of the
    largest cosine with a token of the document; and the cosine of the two pooled vectors.

    Args:
        model: The loaded model.
        settings: The model's settings.
        weights: Version of its files.
        max_cached_tokens: Most tokens of the queries whose vectors are cached; 16,384 take 25 MB at 384 dimensions.
    """

    def __init__(
        self, model: SentenceTransformer, settings: ModelSettings, weights: str, max_cached_tokens: int = 16_384
    ) -> None:
        self._max_cached_tokens = max_cached_tokens
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
        self._cached: dict[tuple[int, ...], _QueryVectors] = {}
        self._info = model_info(
            settings,
            max_tokens,
            weights,
            maxsim_weight=self._maxsim_weight,
            pooled_weight=self._pooled_weight,
            query_prefix=self._query_prefix,
            document_prefix=self._document_prefix,
        )

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        return self._info

    def encode(
        self, query: str, documents: Sequence[str], long_documents: LongDocuments, max_tokens_per_doc: int
    ) -> EncodedQuery:
        """See `RerankingModel`."""
        tokenizer = self._tokenizer
        texts = tokenizer.shorten(documents, max_tokens_per_doc, keep_end=long_documents == "cut_start")
        prefixed = [self._document_prefix + text for text in texts]
        encoded = tokenizer.encode(prefixed, long_documents)
        read, query_truncated = self._encode_query(query, refuse=long_documents == "refuse")
        return EncodedQuery(
            documents=[[Pair(window.ids, query_ids=read) for window in each.windows] for each in encoded],
            query_tokens=len(read) if long_documents == "refuse" else 0,
            truncated=truncated_documents(documents, texts, encoded),
            query_truncated=query_truncated,
        )

    def _encode_query(self, query: str, *, refuse: bool) -> tuple[list[int], bool]:
        """The ids of a query, and whether it was truncated. It is never read in windows: its beginning is compared."""
        text = self._query_prefix + query
        if not refuse:
            text = self._tokenizer.truncated_part(text)
        (encoded,) = self._tokenizer.encode([text], "refuse" if refuse else "cut")
        return encoded.windows[0].ids, encoded.text_truncated

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """See `RerankingModel`."""
        queries = [tuple(pair.query_ids) for pair in pairs]
        with inference_mode():
            vectors = self._query_vectors(dict.fromkeys(queries))
            documents = self._encode([pair.ids for pair in pairs])
            scores: list[float] = self._compare([vectors[ids] for ids in queries], documents).cpu().tolist()
            return scores

    def transform_scores(self, scores: NDArray[np.float32], form: ScoreForm) -> NDArray[np.float32]:
        """See `RerankingModel`; `unit` is (1 + score) / 2."""
        if form != "unit":
            return scores
        # Rounding may put a cosine slightly outside [-1, 1].
        unit: NDArray[np.float32] = np.clip((1 + scores) / 2, 0, 1)
        return unit

    def _query_vectors(self, queries: Collection[tuple[int, ...]]) -> dict[tuple[int, ...], _QueryVectors]:
        """Vectors of queries by their ids, cached because the documents of one query come in several batches."""
        found = {ids: self._cached.pop(ids) for ids in queries if ids in self._cached}
        if missing := [ids for ids in queries if ids not in found]:
            encoded = self._encode(missing)
            for row, ids in enumerate(missing):
                found[ids] = _QueryVectors(encoded.tokens[row][encoded.mask[row].bool()], encoded.pooled[row].clone())
        self._cached |= found  # the most recently used come last
        tokens = sum(map(len, self._cached))
        while tokens > self._max_cached_tokens:
            oldest = next(iter(self._cached))
            del self._cached[oldest]
            tokens -= len(oldest)
        return found

    def _encode(self, ids: Sequence[Sequence[int]]) -> _Vectors:
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


def _prefix(setting: str | None, model: SentenceTransformer, name: str) -> str:
    return (model.prompts.get(name) or "") if setting is None else setting
