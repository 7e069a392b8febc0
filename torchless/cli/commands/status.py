"""`torchless status`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from torchless.cli.console import console, fail
from torchless.cli.options import GATEWAY_URL, Gateway, Key


def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object; with --watch, one per line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it until Ctrl-C, with requests per second.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two updates of --watch.")] = 1.0,
    gateway: Gateway = GATEWAY_URL,
    key: Key = "",
) -> None:
    """Show the health of the gateway and its services.

    Exits with 1 unless all of them are ready.
    """
    import json

    from torchless.cli.gateway_api import GatewayClient, GatewayError
    from torchless.cli.status import Status, ask, to_json, to_table

    async def once() -> Status:
        async with GatewayClient(gateway, key=key, timeout_s=10.0) as client:
            return await ask(client)

    async def again_and_again() -> None:
        from torchless.cli import watch as view

        async with GatewayClient(gateway, key=key, timeout_s=10.0) as client:
            await (view.watch_json(client, interval) if as_json else view.watch(client, console(), interval))

    try:
        if watch:
            asyncio.run(again_and_again())
        found = asyncio.run(once())
    except GatewayError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    if as_json:
        print(json.dumps(to_json(found)))
    else:
        console().print(to_table(found))
    raise typer.Exit(0 if found.readiness.ready else 1)
