"""`torchless rerank`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from torchless.cli.console import console, fail
from torchless.cli.options import GATEWAY_URL, Gateway, Key


def rerank(
    query: Annotated[str, typer.Argument(help="The query.")],
    documents: Annotated[
        list[str] | None, typer.Argument(help="Documents to rerank; by default one per line of standard input.")
    ] = None,
    *,
    as_json: Annotated[
        bool,
        typer.Option("--json", help='Print one JSON object per line: {"index": ..., "score": ..., "document": ...}.'),
    ] = False,
    top: Annotated[int, typer.Option(min=0, help="Print only the best documents, this many; 0 for all.")] = 0,
    unsorted: Annotated[
        bool,
        typer.Option("--unsorted", help="Print each document as soon as it has a score, in the order of the input."),
    ] = False,
    model: Annotated[str, typer.Option(help="Model id; by default the service's default model.")] = "",
    gateway: Gateway = GATEWAY_URL,
    key: Key = "",
) -> None:
    """Sort documents by their relevance to a query.

    Scores are from 0 to 1. Long input is sent in batches. The best documents come first, once all have scores; with
    --unsorted each is printed as soon as it has a score, in the order of the input. At the end, the standard
    error says how many texts were truncated, and whether the model changed meanwhile.
    """
    from torchless.cli.gateway_api import GatewayError
    from torchless.cli.progress import progress
    from torchless.cli.provenance import Provenance
    from torchless.cli.rerank import Scored, best_first, print_json, print_table, score_documents
    from torchless.cli.texts import texts_of

    wanted, total = texts_of(documents, "documents to rerank")
    out = console()
    provenance = Provenance()

    def show(scored: list[Scored]) -> None:
        if as_json:
            print_json(scored)
        else:
            print_table(scored, out)

    async def run() -> None:
        found: list[Scored] = []
        with progress("documents", total) as advance:
            async for scored in score_documents(query, wanted, gateway, provenance, key=key, model=model):
                if unsorted:
                    show(scored)
                else:
                    found += scored
                advance(len(scored))
        if not unsorted:
            show(best_first(found)[: top or None])

    try:
        asyncio.run(run())
    except GatewayError as error:
        fail(str(error))
    finally:
        provenance.print("documents, and the query once for each batch")
