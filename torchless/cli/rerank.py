"""`torchless rerank`: sorts documents by relevance."""

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
    """Scores documents through the gateway; the best comes first.

    Raises:
        GatewayError: The gateway does not answer or refuses the request.
    """

    async def rerank() -> list[Ranked]:
        async with GatewayClient(gateway, key=key) as client:
            return await client.rerank(query, documents, model=model)

    return asyncio.run(rerank())


def print_table(documents: Sequence[str], ranked: Sequence[Ranked], console: Console) -> None:
    """Prints one row per document."""
    table = Table("score", "position", "document", expand=True)
    for result in ranked:
        table.add_row(f"{result.score:.3f}", str(result.index + 1), escape(documents[result.index]))
    console.print(table)


def print_json(documents: Sequence[str], ranked: Sequence[Ranked]) -> None:
    """Prints one JSON object per line."""
    for result in ranked:
        print(json.dumps({"index": result.index, "score": result.score, "document": documents[result.index]}))
