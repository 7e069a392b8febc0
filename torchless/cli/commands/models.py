"""`torchless models`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from torchless.cli.console import console, fail
from torchless.cli.options import GATEWAY_URL, Gateway, Key


def models(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    gateway: Gateway = GATEWAY_URL,
    key: Key = "",
) -> None:
    """List the models and aliases that requests can name."""
    from torchless.cli.gateway_api import GatewayClient, GatewayError
    from torchless.cli.models import print_json, print_table

    async def ask() -> list[dict[str, object]]:
        async with GatewayClient(gateway, key=key) as client:
            return await client.models()

    try:
        found = asyncio.run(ask())
    except GatewayError as error:
        fail(str(error))
    if as_json:
        print_json(found)
    else:
        print_table(found, console())
