"""`torchless embed`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from torchless.cli.console import console, fail
from torchless.cli.options import GATEWAY_URL, Gateway, Key


def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to embed; by default one per line of standard input.")
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help='Print one JSON object per line: {"text": ..., "vector": [...]}.')
    ] = False,
    model: Annotated[str, typer.Option(help="Model id; by default the service's default model.")] = "",
    dimensions: Annotated[int, typer.Option(min=0, help="Number of leading dimensions to keep; 0 for all.")] = 0,
    gateway: Gateway = GATEWAY_URL,
    key: Key = "",
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Call this embedding service over gRPC, without the gateway.")
    ] = "",
) -> None:
    """Embed texts and print their vectors."""
    from torchless.cli.embed import Source, embed_texts, print_json, print_table
    from torchless.cli.gateway_api import GatewayError
    from torchless.contracts.errors import TorchlessError

    wanted = texts or [line.rstrip("\n") for line in sys.stdin]
    if not wanted:
        fail("there are no texts to embed: give them as arguments, or one per line on standard input")
    try:
        vectors = embed_texts(wanted, Source(gateway, address, key), model=model, dimensions=dimensions)
    except (GatewayError, TorchlessError) as error:
        fail(str(error))
    if as_json:
        print_json(wanted, vectors)
    else:
        print_table(wanted, vectors, console())
