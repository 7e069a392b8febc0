"""`torchless rerank`: sorts documents by relevance."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.batches import in_batches
from torchless.cli.gateway_api import GatewayClient
from torchless.cli.provenance import Provenance


@dataclass(frozen=True, slots=True)
class Scored:
    """A document with its score."""

    index: int
    """Its position in the input, from 0."""
    score: float
    """Its relevance to the query, from 0 to 1."""
    document: str
    """The document."""


async def score_documents(
    query: str, documents: Iterable[str], gateway: str, provenance: Provenance, *, key: str = "", model: str = ""
) -> AsyncIterator[list[Scored]]:
    """Scores documents through the gateway, in batches and in the order of the input.

    A score depends on the query and its document alone, so scores of several batches may be sorted together.

    Raises:
        GatewayError: The gateway does not answer or refuses a request.
    """
    async with GatewayClient(gateway, key=key, provenance=provenance) as client:

        async def score(batch: Sequence[str]) -> list[float]:
            scores = [0.0] * len(batch)
            for result in await client.rerank(query, batch, model=model):
                scores[result.index] = result.score
            return scores

        done = 0
        async for batch, scores in in_batches(documents, score):
            pairs = zip(batch, scores, strict=True)
            yield [Scored(done + index, score, document) for index, (document, score) in enumerate(pairs)]
            done += len(batch)


def best_first(scored: Iterable[Scored]) -> list[Scored]:
    """Sorted by score, the best first; documents with equal scores keep their order."""
    return sorted(scored, key=lambda document: (-document.score, document.index))


def print_table(ranked: Sequence[Scored], console: Console) -> None:
    """Prints one row per document."""
    # A table as wide as the terminal; what is not a terminal has no width.
    table = Table("score", "position", "document", expand=console.is_terminal)
    for result in ranked:
        table.add_row(f"{result.score:.3f}", str(result.index + 1), escape(result.document))
    console.print(table)


def print_json(scored: Iterable[Scored]) -> None:
    """Prints one JSON object per line."""
    for each in scored:
        print(
            json.dumps({"index": each.index, "score": each.score, "document": each.document}, ensure_ascii=False),
            flush=True,
        )
