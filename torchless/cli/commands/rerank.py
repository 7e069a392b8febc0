"""`torchless rerank`."""

from __future__ import annotations

import sys
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
    model: Annotated[str, typer.Option(help="Model id; by default the service's default model.")] = "",
    gateway: Gateway = GATEWAY_URL,
    key: Key = "",
) -> None:
    """Sort documents by their relevance to a query.

    Scores are from 0 to 1.
    """
    from torchless.cli.gateway_api import GatewayError
    from torchless.cli.rerank import print_json, print_table, rerank_documents

    wanted = documents or [line.rstrip("\n") for line in sys.stdin]
    if not wanted:
        fail("there are no documents to rerank: give them as arguments, or one per line on standard input")
    try:
        ranked = rerank_documents(query, wanted, gateway, key=key, model=model)
    except GatewayError as error:
        fail(str(error))
    if as_json:
        print_json(wanted, ranked)
    else:
        print_table(wanted, ranked, console())
