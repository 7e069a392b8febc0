"""Searches a collection as an application does: by vector, then reranking the nearest documents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.collection import Collection
from benchmarks.quality.services import Services
from torchless.clients.embedding import InputType
from torchless.clients.reranking import Query

T = TypeVar("T")
_TEXTS_A_CALL = 32
_QUERIES_A_CALL = 4
_CALLS_IN_FLIGHT = 2
"""Two, so that the next call waits when the service finishes one."""
Announce = Callable[[int], None]
"""Receives the number of texts or pairs done since the last call."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The documents found for each question: indices, shape (questions, top), the best first."""

    by_vector: NDArray[np.intp]
    """Ordered by the similarity of the vectors."""
    reranked: NDArray[np.intp]
    """The same documents, reranked."""


async def search(services: Services, collection: Collection, questions: int, top: int, done: Announce) -> Orders:
    """Searches for the first `questions` questions among all documents.

    Args:
        services: The services that embed and rerank.
        collection: The questions and documents.
        questions: Number of questions.
        top: Documents found by vector and reranked for each question.
        done: Receives the progress.
    """
    chosen = collection.questions[:questions]
    documents = await _embed(services, collection.documents, InputType.DOCUMENT, done)
    queries = await _embed(services, chosen, InputType.QUERY, done)
    by_vector = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :top]
    wanted = [
        Query(question, [collection.documents[index] for index in found])
        for question, found in zip(chosen, by_vector, strict=True)
    ]
    orders = await _rerank(services, wanted, done)
    return Orders(by_vector, np.take_along_axis(by_vector, orders, axis=1))


async def _embed(services: Services, texts: Sequence[str], kind: InputType, done: Announce) -> NDArray[np.float32]:
    vectors = []
    for part in _parts(texts, _TEXTS_A_CALL):
        vectors.append(await services.embed(part, kind))
        done(len(part))
    return np.concatenate(vectors)


async def _rerank(services: Services, queries: Sequence[Query], done: Announce) -> NDArray[np.intp]:
    """Shape (queries, documents)."""
    orders: dict[int, list[NDArray[np.intp]]] = {}
    parts = iter(enumerate(_parts(queries, _QUERIES_A_CALL)))

    async def work() -> None:
        for number, part in parts:
            orders[number] = await services.rerank(part)
            done(sum(len(query.documents) for query in part))

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLS_IN_FLIGHT):
            group.create_task(work())
    return np.stack([order for number in sorted(orders) for order in orders[number]])


def work_of(collection: Collection, questions: int, top: int) -> int:
    """The total that `done` receives."""
    return len(collection.documents) + questions + questions * top


def _parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[first : first + size] for first in range(0, len(items), size)]
