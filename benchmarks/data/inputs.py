"""The requests of a run: the same, in the same order, for every contender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.data.collection import read_collection
from benchmarks.data.texts import of_sentences, passages
from benchmarks.plan import Case, Length, Task

_POOL = 2048
"""Number of texts that requests are made from, in order and repeatedly."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    texts: Sequence[str]
    """The texts to embed, or the documents to score."""
    query: str = ""
    """The query of the documents."""

    def to_json(self) -> dict[str, Any]:
        """For a job of another process, which reads it with `Request(**found)`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Pools:
    """The texts of a run."""

    texts: Mapping[Length, Sequence[str]]
    """Texts to embed."""
    queries: Sequence[str]
    """Queries to rerank for."""
    documents: Sequence[str]
    """Documents to rerank."""
    source: str
    """A description of the source of queries and documents."""

    def requests(self, case: Case) -> list[Request]:
        """The requests of a case; each uses the next texts of the pool."""
        if case.task is Task.EMBEDDING:
            return [Request(texts) for texts in _parts(self.texts[case.length], case.items)]
        return [
            Request(texts, self.queries[number % len(self.queries)])
            for number, texts in enumerate(_parts(self.documents, case.items))
        ]

    def by_name(self) -> dict[str, list[str]]:
        """All texts by kind, to count their tokens."""
        texts = {str(length): list(texts) for length, texts in self.texts.items()}
        return {**texts, "query": list(self.queries), "document": list(self.documents)}


def make_pools(collection: Path) -> Pools:
    """Generated texts for embedding; for reranking those of `collection`, or generated ones if it does not exist."""
    texts = {length: passages(_POOL, length, seed=1) for length in Length}
    if not collection.is_dir():
        queries = passages(_POOL, Length.SHORT, seed=2)
        return Pools(texts, queries, passages(_POOL, Length.SHORT, seed=3), "generated from word lists")
    found = read_collection(collection)
    documents = [passage for text in found.documents for passage in of_sentences(text)][:_POOL]
    return Pools(texts, found.questions[:_POOL], documents, f"questions and sentences of {found.name}")


def _parts(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    """Parts of `size` texts; a shorter rest is dropped."""
    return [texts[first : first + size] for first in range(0, len(texts) - size + 1, size)]
