"""`torchless status`: how the services are, as the gateway sees them."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.gateway_api import GatewayClient, GatewayError, Readiness


def status(url: str, console: Console, *, key: str = "") -> bool:
    """Prints a line for each service behind the gateway at `url`; whether all are ready.

    The gateway asks nobody for a key who asks for that; `key` is for what is told of the GPUs beside.

    Raises:
        GatewayError: The gateway does not answer.
    """
    readiness, notes = asyncio.run(_ask(url, key))
    table = Table("service", "state", "")
    table.add_row("gateway", "[green]answers[/]", "")
    for service in readiness.services:
        state = "[green]ready[/]" if service.ready else "[red]not ready[/]"
        table.add_row(escape(service.name), state, escape(service.reason or notes.get(service.name, "")))
    console.print(table)
    return readiness.ready


async def _ask(url: str, key: str) -> tuple[Readiness, dict[str, str]]:
    """How the services are, and what is worth saying of one that is ready."""
    async with GatewayClient(url, key=key, timeout_s=10.0) as gateway:
        readiness = await gateway.readiness()
        asked = any(service.name == "gpu" and service.ready for service in readiness.services)
        return readiness, {"gpu": await _gpus(gateway)} if asked else {}


async def _gpus(gateway: GatewayClient) -> str:
    """What is said of the GPUs, or why nothing is: the readiness of the services is worth telling in any case."""
    try:
        return await gateway.gpus()
    except GatewayError as error:
        return f"its GPUs are not told of: {error}"
