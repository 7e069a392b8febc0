"""The reranking use case, without a transport: validates, tokenizes, batches, and joins the scores of windows."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bentos.models.pool import ModelPool
from bentos.models.tokens import TextTooLongError
from bentos.reranking.model import EncodedQuery, LongDocuments, ModelInfo, Pair, Query, RerankingModel, ScoreForm
from bentos.reranking.settings import RerankingSettings
from bentos.reranking.validation import check_characters, check_lengths, check_queries, text_too_long
from bentos.serving.batching import Work
from torchless.contracts.errors import ErrorKind, TorchlessError

_SMALL_CHARACTERS = 1024
"""Total length of texts that are tokenized on the event loop: a hop to another thread would cost more."""

_NO_LIMIT = 2**31
"""More tokens than any document has."""


class BatchKey(NamedTuple):
    """Pairs with equal keys may share a batch."""

    model: str

    def __str__(self) -> str:
        return self.model


@dataclass(frozen=True, slots=True)
class RerankJob:
    """One request; the fields are those of `RerankBatchRequest`."""

    queries: Sequence[Query]
    model: str = ""
    form: ScoreForm = "model"
    max_tokens_per_doc: int = 0
    """0: the model's setting."""
    long_documents: LongDocuments | None = None
    """None: the model's setting."""


@dataclass(frozen=True, slots=True)
class QueryScores:
    """The scores of one query's documents."""

    scores: NDArray[np.float32]
    """Shape (documents,)."""
    token_counts: list[int]
    """Tokens that the model read for each document, query and special tokens included."""
    truncated: list[int]
    """Indices of the documents of which tokens were dropped, ascending."""
    query_truncated: bool
    """Whether tokens of the query were dropped, for at least one document."""


@dataclass(frozen=True, slots=True)
class RerankAnswer:
    """The scores of a request; times in seconds."""

    info: ModelInfo
    queries: list[QueryScores]
    tokenization_s: float
    queue_s: float
    inference_s: float


class Reranker:
    """Scores documents with one or more models.

    Args:
        models: The models, the default one first.
        settings: Limits and batching.
    """

    def __init__(self, models: Sequence[RerankingModel], settings: RerankingSettings) -> None:
        self._settings = settings
        self._pool: ModelPool[RerankingModel, BatchKey, Pair, float] = ModelPool(
            "reranking", models, lambda model, key, pairs: model.score(pairs), settings, inputs="queries"
        )

    async def start(self) -> None:
        """Starts the devices' threads and runs some batches, so that the first caller does not wait for the warm-up."""
        self._pool.start()
        query, text = "of what importance is a text", "a text of no importance "
        texts = [f"{text * (1 + i % 8)}{i}" for i in range(32)]
        for model in self._pool.models:
            for _ in range(self._settings.warm_up_batches):
                # Without validation: the limits for callers may be lower.
                await self._score(model, RerankJob([Query(query, [text])]))
                await self._score(model, RerankJob([Query(query, texts)]))

    async def stop(self) -> None:
        """Finishes the waiting requests and ends the threads."""
        await self._pool.stop()

    def models(self) -> list[ModelInfo]:
        """The models, the default one first."""
        return [model.info for model in self._pool.models]

    async def rerank(self, job: RerankJob, *, flow: str = "", expires_at: float | None = None) -> RerankAnswer:
        """Scores every document of every query.

        Args:
            job: The queries, documents and options.
            flow: The caller, for fairness between callers; empty: unknown.
            expires_at: `time.monotonic()` after which the caller no longer waits.

        Raises:
            TorchlessError: INVALID_INPUT, INPUT_TOO_LARGE, NOT_FOUND, OVERLOADED, DEADLINE, GPU_UNAVAILABLE, INTERNAL.
        """
        model = self._pool.find(job.model)
        characters = check_queries(job.queries, self._settings)
        if (job.long_documents or model.info.long_documents) == "refuse":
            check_characters(job.queries, self._settings)
        self._pool.refuse_if_full(model)
        return await self._score(model, job, flow=flow, expires_at=expires_at, characters=characters)

    async def _score(
        self,
        model: RerankingModel,
        job: RerankJob,
        *,
        flow: str = "",
        expires_at: float | None = None,
        characters: int = 0,
    ) -> RerankAnswer:
        started = time.monotonic()
        if characters <= _SMALL_CHARACTERS:
            encoded = _encode(model, job)
        else:
            encoded = await self._pool.run_in_tokenizer_pool(lambda: _encode(model, job), characters)
        tokenized = time.monotonic()
        pairs = list(chain.from_iterable(chain.from_iterable(query.documents for query in encoded)))
        lengths = list(chain.from_iterable(map(_lengths, encoded)))
        work = Work(BatchKey(model.info.id), lengths, pairs, flow or None, expires_at)
        outcome = await self._pool.run(model, work)
        queries = _join(job.queries, encoded, outcome.results, model, job.form)
        self._pool.count_truncated(model, sum(len(each.truncated) + each.query_truncated for each in queries))
        return RerankAnswer(
            model.info,
            queries,
            tokenized - started,
            outcome.queue_s,
            outcome.device_s,
        )


def _encode(model: RerankingModel, job: RerankJob) -> list[EncodedQuery]:
    long_documents = job.long_documents or model.info.long_documents
    # A caller who refuses truncation has all that fits the model read, unless it sets a limit itself.
    most = _NO_LIMIT if long_documents == "refuse" else model.info.max_tokens_per_doc
    encoded = []
    for number, query in enumerate(job.queries):
        documents = list(_unique_documents(query))
        try:
            each = model.encode(query.text, documents, long_documents, job.max_tokens_per_doc or most)
        except TextTooLongError as error:
            raise text_too_long(error, query, number) from None
        check_lengths(query, each, number, model.info.max_tokens)
        encoded.append(each)
    return encoded


def _unique_documents(query: Query) -> dict[str, int]:
    """The query's distinct documents, each with its index among them.

    A repeated document is scored once, so that its scores are equal to the last bit and keep their order.
    """
    return {text: index for index, text in enumerate(dict.fromkeys(query.documents))}


def _lengths(query: EncodedQuery) -> list[int]:
    """Tokens of each pair in a batch; the query's tokens are shared by all of its pairs."""
    pairs = list(chain.from_iterable(query.documents))
    return [len(pair.ids) + math.ceil(len(pair.query_ids) / len(pairs)) for pair in pairs]


def _join(
    queries: Sequence[Query],
    encoded: Sequence[EncodedQuery],
    results: Sequence[float],
    model: RerankingModel,
    form: ScoreForm,
) -> list[QueryScores]:
    # Every comparison with NaN is false, so NaN would make the order meaningless, and `max` over windows could hide it.
    _check_finite(raw := np.array(results, dtype=np.float32))
    scores = iter(raw)
    answers = []
    for query, query_encoded in zip(queries, encoded, strict=True):
        best = np.array([max(next(scores) for _ in windows) for windows in query_encoded.documents], dtype=np.float32)
        transformed = model.transform_scores(best, form)
        _check_finite(transformed)
        index_of = _unique_documents(query)
        indices = [index_of[text] for text in query.documents]
        counts = [sum(pair.tokens for pair in windows) for windows in query_encoded.documents]
        truncated = [number for number, index in enumerate(indices) if index in query_encoded.truncated]
        answers.append(
            QueryScores(
                transformed[indices], [counts[index] for index in indices], truncated, query_encoded.query_truncated
            )
        )
    return answers


def _check_finite(scores: NDArray[np.float32]) -> None:
    if not np.isfinite(scores).all():
        raise TorchlessError(ErrorKind.INTERNAL, "the model returned scores that are not finite")
