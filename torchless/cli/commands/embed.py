"""`torchless embed`."""

from __future__ import annotations

import asyncio
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
    """Embed texts and print their vectors.

    Long input is sent in batches, and each vector is printed as soon as it is there. At the end, the standard error
    says how many texts were truncated, and whether the model changed meanwhile.
    """
    from torchless.cli.embed import Source, embed_texts, print_json, print_table
    from torchless.cli.gateway_api import GatewayError
    from torchless.cli.progress import progress
    from torchless.cli.provenance import Provenance
    from torchless.cli.texts import texts_of
    from torchless.contracts.errors import TorchlessError

    wanted, total = texts_of(texts, "texts to embed")
    out = console()
    provenance = Provenance()

    async def run() -> None:
        source = Source(gateway, address, key)
        with progress("texts", total) as advance:
            async for batch, vectors in embed_texts(wanted, source, provenance, model=model, dimensions=dimensions):
                if as_json:
                    print_json(batch, vectors)
                else:
                    print_table(batch, vectors, out)
                advance(len(batch))

    try:
        asyncio.run(run())
    except (GatewayError, TorchlessError) as error:
        fail(str(error))
    finally:
        provenance.print("texts")
