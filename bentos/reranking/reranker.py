"""What the service does, without a transport: checks, tokenizes, batches, and joins the scores of windows."""

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
from bentos.reranking.model import EncodedQuery, LongDocuments, ModelInfo, Pair, RerankingModel, ScoreForm
from bentos.reranking.settings import RerankingSettings
from bentos.serving.batching import Work
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large, invalid_input

_SMALL_CHARACTERS = 1024
"""Texts that are shorter than this together are tokenized at once: a hop to another thread would cost more."""


class BatchKey(NamedTuple):
    """What pairs must have in common to share a batch."""

    model: str

    def __str__(self) -> str:
        return self.model


@dataclass(frozen=True, slots=True)
class Query:
    """A query and its documents."""

    text: str
    documents: Sequence[str]


@dataclass(frozen=True, slots=True)
class RerankJob:
    """One request; the fields are those of `RerankBatchRequest`."""

    queries: Sequence[Query]
    model: str = ""
    form: ScoreForm = "model"
    max_tokens_per_doc: int = 0
    """0: as the model is configured."""
    long_documents: LongDocuments | None = None
    """None: as the model is configured."""


@dataclass(frozen=True, slots=True)
class QueryScores:
    """The scores of one query's documents."""

    scores: NDArray[np.float32]
    """Shape (documents,)."""
    token_counts: list[int]
    """Tokens that the model read for each document, query and special tokens included."""


@dataclass(frozen=True, slots=True)
class RerankAnswer:
    """What came of it; times in seconds."""

    info: ModelInfo
    queries: list[QueryScores]
    tokenization_s: float
    queue_s: float
    inference_s: float


class Reranker:
    """Several models, each on its device.

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
                # Past the checks: limits that are set for callers may be lower.
                await self._answer(model, RerankJob([Query(query, [text])]))
                await self._answer(model, RerankJob([Query(query, texts)]))

    async def stop(self) -> None:
        """Works off what waits and ends the threads."""
        await self._pool.stop()

    def models(self) -> list[ModelInfo]:
        """The models, the default one first."""
        return [model.info for model in self._pool.models]

    async def rerank(self, job: RerankJob, *, flow: str = "", expires_at: float | None = None) -> RerankAnswer:
        """Scores of every document of every query.

        Args:
            job: The queries and documents, and how.
            flow: Whose job it is, for fairness; empty: nobody's in particular.
            expires_at: `time.monotonic()` after which nobody waits for the answer.

        Raises:
            TorchlessError: INVALID_INPUT, INPUT_TOO_LARGE, NOT_FOUND, OVERLOADED, DEADLINE, GPU_UNAVAILABLE, INTERNAL.
        """
        model = self._pool.find(job.model)
        characters = self._check(job)
        self._pool.refuse_if_full(model)
        return await self._answer(model, job, flow=flow, expires_at=expires_at, characters=characters)

    async def _answer(
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
        return RerankAnswer(
            model.info,
            _joined(job.queries, encoded, outcome.results, model, job.form),
            tokenized - started,
            outcome.queue_s,
            outcome.device_s,
        )

    def _check(self, job: RerankJob) -> int:
        """Refuses what no model takes; characters of the rest."""
        limits = self._settings
        if not job.queries:
            raise invalid_input("queries", "is empty; give at least one")
        if len(job.queries) > limits.max_queries:
            raise input_too_large("queries", f"holds {len(job.queries)}; at most {limits.max_queries} are taken")
        documents = sum(len(query.documents) for query in job.queries)
        if documents > limits.max_documents:
            raise input_too_large("queries", f"hold {documents} documents; at most {limits.max_documents} are taken")
        characters = 0
        for number, query in enumerate(job.queries):
            name = f"queries[{number}]"
            if not query.documents:
                raise invalid_input(f"{name}.documents", "is empty; give at least one")
            characters += _checked_length(f"{name}.query", query.text, limits.max_query_characters)
            for index, text in enumerate(query.documents):
                characters += _checked_length(f"{name}.documents[{index}]", text, limits.max_document_characters)
        if characters > limits.max_request_characters:
            raise input_too_large(
                "queries", f"hold {characters} characters in all; at most {limits.max_request_characters} are taken"
            )
        return characters


def _checked_length(field: str, text: str, longest: int) -> int:
    if not text:
        raise invalid_input(field, "is empty")
    if len(text) > longest:
        raise input_too_large(field, f"has {len(text)} characters; at most {longest} are taken")
    return len(text)


def _encode(model: RerankingModel, job: RerankJob) -> list[EncodedQuery]:
    way = job.long_documents or model.info.long_documents
    longest = job.max_tokens_per_doc or model.info.max_tokens_per_doc
    encoded = [model.encode(query.text, list(_unique_documents(query)), way, longest) for query in job.queries]
    if way == "refuse":
        for number, (query, given) in enumerate(zip(encoded, job.queries, strict=True)):
            _refuse_too_long(query, given, f"queries[{number}]", model.info.max_tokens)
    return encoded


def _unique_documents(query: Query) -> dict[str, int]:
    """The query's documents without repetitions, and where among them each stands.

    One that comes twice is read once: its two scores are then equal to the last bit, and keep their order.
    """
    return {text: place for place, text in enumerate(dict.fromkeys(query.documents))}


def _lengths(query: EncodedQuery) -> list[int]:
    """What each pair costs a batch, in tokens: a query that its documents share is counted once."""
    pairs = list(chain.from_iterable(query.documents))
    return [len(pair.ids) + math.ceil(len(pair.query_ids) / len(pairs)) for pair in pairs]


def _refuse_too_long(query: EncodedQuery, given: Query, name: str, most: int) -> None:
    if query.query_tokens > most:
        raise input_too_large(
            f"{name}.query", f"has {query.query_tokens} tokens and the model reads at most {most}; shorten it"
        )
    for text, windows in zip(_unique_documents(given), query.documents, strict=True):
        if (tokens := len(windows[0].ids)) > most:
            raise input_too_large(
                f"{name}.documents[{given.documents.index(text)}]",
                f"has {tokens} tokens as the model reads it, which is at most {most}; shorten it, or let it be cut",
            )


def _joined(
    queries: Sequence[Query],
    encoded: Sequence[EncodedQuery],
    results: Sequence[float],
    model: RerankingModel,
    form: ScoreForm,
) -> list[QueryScores]:
    # A comparison with NaN is always false: it would leave the documents in an order that means nothing, and windows
    # would hide it.
    _refuse_what_is_not_finite(raw := np.array(results, dtype=np.float32))
    scores = iter(raw)
    answers = []
    for given, query in zip(queries, encoded, strict=True):
        best = np.array([max(next(scores) for _ in windows) for windows in query.documents], dtype=np.float32)
        transformed = model.transform_scores(best, form)
        _refuse_what_is_not_finite(transformed)
        place_of = _unique_documents(given)
        places = [place_of[text] for text in given.documents]
        counts = [sum(pair.tokens for pair in windows) for windows in query.documents]
        answers.append(QueryScores(transformed[places], [counts[place] for place in places]))
    return answers


def _refuse_what_is_not_finite(scores: NDArray[np.float32]) -> None:
    if not np.isfinite(scores).all():
        raise TorchlessError(ErrorKind.INTERNAL, "the model answered scores that are not finite")
