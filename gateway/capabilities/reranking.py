"""Reranking as every API family of the gateway needs it; knows no HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway.capabilities.errors import EmptyInputError, retold
from gateway.settings import LimitSettings, ModelSettings
from torchless.clients.call import CallContext
from torchless.clients.reranking import DocumentScores, Query, Reranking, RerankingClient, RerankOptions
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large, invalid_input

_QUERY = re.compile(r"queries\[(\d+)\]\.query")
_DOCUMENT = re.compile(r"queries\[(\d+)\]\.documents\[(\d+)\]")
_DOCUMENTS = re.compile(r"queries(?:\[\d+\](?:\.documents)?)?")


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents in order."""

    order: list[int]
    """Indices of the documents, the best first; of equal scores the one given first."""
    scores: list[float]
    """The score of each entry of `order`, float32, all finite."""
    answer: Reranking
    """What the service answered."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a request calls the parts of what it asks, for errors."""

    documents: str
    """All documents together."""
    query: Callable[[int], str]
    """The query at an index."""
    document: Callable[[int, int], str]
    """The document at an index of the query at an index."""

    def of(self, field: str) -> str:
        """The request's name for `field` of the service's."""
        if found := _QUERY.match(field):
            return self.query(int(found[1])) + field[found.end() :]
        if found := _DOCUMENT.match(field):
            return self.document(int(found[1]), int(found[2])) + field[found.end() :]
        return self.documents if _DOCUMENTS.fullmatch(field) else field


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a request's field, a single one as a list of one."""

    texts: Sequence[str]
    field: str
    name: Callable[[int], str]

    @classmethod
    def of(cls, given: str | Sequence[str], field: str) -> _Texts:
        if isinstance(given, str):
            return cls([given], field, lambda _: field)
        return cls(given, field, lambda index: f"{field}[{index}]")


class RerankingUseCase:
    """Scores what requests hold, and puts it in order.

    Args:
        client: The reranking service; None where there is none.
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
        context: CallContext,
        *,
        field: str,
        top_n: int = 0,
    ) -> Ranking:
        """`documents` in the order of their scores for `query`.

        Args:
            query: The query.
            documents: The documents.
            options: How; its model may be an alias.
            context: For whom, and how long they wait.
            field: Name of the request's field that holds the documents; errors use it. That of the query is `query`.
            top_n: How many of the best are wanted, and more than there are is all of them; 0: all.

        Raises:
            EmptyInputError: There is no document, or a document or the query has no character.
            TorchlessError: As the service, because a limit is passed, or UNREACHABLE where there is no service.
        """
        self._check_query(query, "query")
        self._check_number(documents, field)
        for index, document in enumerate(documents):
            self._check_document(document, f"{field}[{index}]")
        names = Names(field, lambda _: "query", lambda _, index: f"{field}[{index}]")
        answer = await self._scored([Query(query, documents)], options, context, names)
        return _ranking(answer, top_n or len(documents))

    async def score(
        self,
        queries: str | Sequence[str],
        documents: str | Sequence[str],
        options: RerankOptions,
        context: CallContext,
        *,
        fields: tuple[str, str],
    ) -> Reranking:
        """Scores of pairs: of one query with each document, or of each query with the document beside it.

        The scores of all pairs, in their order, are those of all queries of the answer one after the other.

        Args:
            queries: One, or as many as documents.
            documents: One or several.
            options: How; its model may be an alias.
            context: For whom, and how long they wait.
            fields: Names of the request's fields that hold the queries and the documents; errors use them.

        Raises:
            EmptyInputError: There is nothing to score, or a text has no character.
            TorchlessError: INVALID_INPUT, when the numbers do not fit each other; else as `rank`.
        """
        asked, read = _Texts.of(queries, fields[0]), _Texts.of(documents, fields[1])
        self._check_number(asked.texts, asked.field)
        self._check_number(read.texts, read.field)
        if len(asked.texts) not in {1, len(read.texts)}:
            said = f"holds {len(asked.texts)} texts and {read.field} {len(read.texts)}; send one, or as many of both"
            raise invalid_input(asked.field, said)
        for index, query in enumerate(asked.texts):
            self._check_query(query, asked.name(index))
        for index, document in enumerate(read.texts):
            self._check_document(document, read.name(index))
        if len(asked.texts) == 1:
            names = Names(read.field, asked.name, lambda _, index: read.name(index))
            return await self._scored([Query(asked.texts[0], read.texts)], options, context, names)
        names = Names(read.field, asked.name, lambda index, _: read.name(index))
        pairs = [Query(query, [document]) for query, document in zip(asked.texts, read.texts, strict=True)]
        return await self._scored(pairs, options, context, names)

    async def _scored(
        self, queries: Sequence[Query], options: RerankOptions, context: CallContext, names: Names
    ) -> Reranking:
        if self._client is None:
            raise TorchlessError(
                ErrorKind.UNREACHABLE,
                "no reranking service is configured: set reranking.address in the gateway's settings",
            )
        try:
            answer = await self._client.rerank_batch(
                queries, replace(options, model=self.model_id(options.model)), context
            )
        except TorchlessError as error:
            raise retold(error, names.of) from error
        for scores in answer.queries:
            _check_finite(scores)
        return answer

    def _check_number(self, given: Sequence[str], field: str) -> None:
        if not given:
            raise EmptyInputError(field, "is empty; send at least one text")
        if len(given) > self._limits.documents:
            raise input_too_large(
                field, f"holds {len(given)} texts; one request takes at most {self._limits.documents}"
            )

    def _check_query(self, query: str, field: str) -> None:
        _check_length(query, field, self._limits.characters)

    def _check_document(self, document: str, field: str) -> None:
        _check_length(document, field, self._limits.document_characters)


def _check_length(text: str, field: str, most: int) -> None:
    if not text:
        raise EmptyInputError(field, "has no characters; a text is never empty")
    if len(text) > most:
        raise input_too_large(field, f"has {len(text)} characters; it takes at most {most}")


def _check_finite(given: DocumentScores) -> None:
    # Sorted, they would be an order that means nothing.
    if not np.isfinite(given.scores).all():
        raise TorchlessError(ErrorKind.INTERNAL, "the model answered a score that is no finite number")


def _ranking(answer: Reranking, top_n: int) -> Ranking:
    (given,) = answer.queries
    order = given.order()[:top_n]
    return Ranking(order.tolist(), list(given.scores[order]), answer)
