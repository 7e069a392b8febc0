"""Reranking, as every API family needs it: limits, model aliases, order, and errors in the request's field names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway.capabilities.errors import EmptyInputError, NotConfiguredError
from gateway.capabilities.request import RequestContext
from gateway.settings import LimitSettings, ModelSettings
from torchless.clients.reranking import DocumentScores, Query, Reranking, RerankingClient, RerankOptions
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large, invalid_input
from torchless.contracts.field_path import FieldPath, format_path


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents in order."""

    order: list[int]
    """Indices of the documents, best first; equal scores keep the order of the request."""
    scores: list[float]
    """The score of each entry of `order`, float32, all finite."""
    answer: Reranking
    """The service's answer."""


@dataclass(frozen=True, slots=True)
class RequestPaths:
    """The request's paths of queries and documents, for errors."""

    documents: FieldPath
    """All documents together."""
    query: Callable[[int], FieldPath]
    """The query at an index."""
    document: Callable[[int, int], FieldPath]
    """The document at the second index, of the query at the first."""

    def rename(self, of_service: FieldPath) -> FieldPath:
        """The request's path for a path of the service."""
        match of_service:
            case ("queries", int(query), "query", *rest):
                return (*self.query(query), *rest)
            case ("queries", int(query), "documents", int(document), *rest):
                return (*self.document(query, document), *rest)
            case ("queries",) | ("queries", int()) | ("queries", int(), "documents"):
                return self.documents
        return of_service


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a request's field, a single one as a list of one."""

    texts: Sequence[str]
    path: FieldPath
    path_of: Callable[[int], FieldPath]

    @classmethod
    def of(cls, given: str | Sequence[str], field: str) -> _Texts:
        path = (field,)
        if isinstance(given, str):
            return cls([given], path, lambda _: path)
        return cls(given, path, lambda index: (*path, index))


class RerankingUseCase:
    """Scores the documents of requests, and orders them.

    Args:
        client: The reranking service; None: none is configured.
        limits: Limits of a request.
        models: Names of models.
    """

    def __init__(self, client: RerankingClient | None, limits: LimitSettings, models: ModelSettings) -> None:
        self._client = client
        self._limits = limits
        self._aliases = models.rerank_aliases

    def model_id(self, name: str) -> str:
        """The id that a model's name in a request stands for; empty: the default model."""
        return self._aliases.get(name, name)

    async def rank(
        self,
        query: str,
        documents: Sequence[str],
        options: RerankOptions,
        context: RequestContext,
        *,
        field: str,
        top_n: int = 0,
    ) -> Ranking:
        """`documents` in the order of their scores for `query`.

        Args:
            query: The query.
            documents: The documents.
            options: Options; the model may be an alias.
            context: The request.
            field: The request's field that holds the documents, for errors. That of the query is `query`.
            top_n: Number of best documents to return; 0, or more than there are: all.

        Raises:
            EmptyInputError: There is no document, or the query is empty.
            NotConfiguredError: There is no reranking service.
            TorchlessError: As the service, or because the input exceeds a limit.
        """
        path = (field,)
        _check_query(query, ("query",))
        self._check_number(documents, path)
        paths = RequestPaths(path, lambda _: ("query",), lambda _, index: (field, index))
        answer = await self._score([Query(query, documents)], options, context, paths)
        return _ranking(answer, top_n or len(documents))

    async def score(
        self,
        queries: str | Sequence[str],
        documents: str | Sequence[str],
        options: RerankOptions,
        context: RequestContext,
        *,
        fields: tuple[str, str],
    ) -> Reranking:
        """Scores of pairs: of one query with each document, or of each query with the document at its index.

        The scores of the pairs, in their order, are those of the answer's queries, one after the other.

        Args:
            queries: One, or as many as documents.
            documents: One or several.
            options: Options; the model may be an alias.
            context: The request.
            fields: The request's fields that hold the queries and the documents, for errors.

        Raises:
            EmptyInputError: There is nothing to score, or a query is empty.
            TorchlessError: INVALID_INPUT, when the numbers do not match; else as `rank`.
        """
        asked, read = _Texts.of(queries, fields[0]), _Texts.of(documents, fields[1])
        self._check_number(asked.texts, asked.path)
        self._check_number(read.texts, read.path)
        if len(asked.texts) not in {1, len(read.texts)}:
            other = f"{format_path(read.path)} holds {len(read.texts)}"
            raise invalid_input(asked.path, f"holds {len(asked.texts)} texts but {other}; send one, or the same number")
        for index, query in enumerate(asked.texts):
            _check_query(query, asked.path_of(index))
        if len(asked.texts) == 1:
            paths = RequestPaths(read.path, asked.path_of, lambda _, index: read.path_of(index))
            return await self._score([Query(asked.texts[0], read.texts)], options, context, paths)
        paths = RequestPaths(read.path, asked.path_of, lambda index, _: read.path_of(index))
        pairs = [Query(query, [document]) for query, document in zip(asked.texts, read.texts, strict=True)]
        return await self._score(pairs, options, context, paths)

    async def _score(
        self, queries: Sequence[Query], options: RerankOptions, context: RequestContext, paths: RequestPaths
    ) -> Reranking:
        if self._client is None:
            raise NotConfiguredError("reranking")
        options = replace(options, model=self.model_id(options.model))
        context.provenance.requested(options.model, sum(len(query.documents) for query in queries))
        try:
            answer = await self._client.rerank_batch(queries, options, context.for_call())
        except TorchlessError as error:
            raise error.with_paths(paths.rename) from error
        tokens = sum(sum(scores.token_counts) for scores in answer.queries)
        context.provenance.answered(answer.model, tokens, answer.timings)
        context.provenance.revision = answer.revision
        for scores in answer.queries:
            _check_finite(scores)
        context.provenance.truncated += answer.truncated_texts
        return answer

    def _check_number(self, given: Sequence[str], path: FieldPath) -> None:
        if not given:
            raise EmptyInputError(path, "is empty; send at least one text")
        most = self._limits.documents
        if len(given) > most:
            raise input_too_large(path, f"holds {len(given)} texts; the maximum is {most}")


def _check_query(query: str, path: FieldPath) -> None:
    if not query:
        raise EmptyInputError(path, "has no characters; a query must not be empty")


def _check_finite(given: DocumentScores) -> None:
    # An order of such scores would mean nothing.
    if not np.isfinite(given.scores).all():
        raise TorchlessError(ErrorKind.INTERNAL, "the model returned scores that are not finite")


def _ranking(answer: Reranking, top_n: int) -> Ranking:
    (given,) = answer.queries
    order = given.order()[:top_n]
    return Ranking(order.tolist(), list(given.scores[order]), answer)
