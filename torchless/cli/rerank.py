"""`torchless rerank`: documents in the order of their relevance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.gateway_api import GatewayClient, Ranked


def rerank_documents(
    query: str, documents: Sequence[str], gateway: str, *, key: str = "", model: str = ""
) -> list[Ranked]:
    """`documents` with their scores, the best first.

    Raises:
        GatewayError: The gateway does not answer, or refuses.
    """

    async def ask() -> list[Ranked]:
        async with GatewayClient(gateway, key=key) as client:
            return await client.rerank(query, documents, model=model)

    return asyncio.run(ask())


def print_table(documents: Sequence[str], ranked: Sequence[Ranked], console: Console) -> None:
    """A row a document."""
    table = Table("score", "given as", "document", expand=True)
    for each in ranked:
        table.add_row(f"{each.score:.3f}", str(each.index + 1), escape(documents[each.index]))
    console.print(table)


def print_json(documents: Sequence[str], ranked: Sequence[Ranked]) -> None:
    """A line a document."""
    for each in ranked:
        print(json.dumps({"index": each.index, "score": each.score, "document": documents[each.index]}))
