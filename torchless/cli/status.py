"""`torchless status`: how the services are, as the gateway sees them."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.gateway_api import GatewayClient, Readiness


def status(url: str, console: Console) -> bool:
    """Prints a line for each service behind the gateway at `url`; whether all are ready.

    Raises:
        GatewayError: The gateway does not answer.
    """
    readiness = asyncio.run(_ask(url))
    table = Table("service", "state", "why")
    table.add_row("gateway", "[green]answers[/]", "")
    for service in readiness.services:
        state = "[green]ready[/]" if service.ready else "[red]not ready[/]"
        table.add_row(escape(service.name), state, escape(service.reason))
    console.print(table)
    return readiness.ready


async def _ask(url: str) -> Readiness:
    async with GatewayClient(url, timeout_s=10.0) as gateway:
        return await gateway.readiness()
