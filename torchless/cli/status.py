"""`torchless status`: how the services are, as the gateway sees them."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.gateway_api import EndpointState, GatewayClient, GatewayError, Readiness


def status(url: str, console: Console, *, key: str = "") -> bool:
    """Prints a line for each service behind the gateway at `url`; whether all are ready.

    The gateway asks nobody for a key who asks for that; `key` is for what is told of the GPUs beside.

    Raises:
        GatewayError: The gateway does not answer.
    """
    readiness, notes = asyncio.run(_ask(url, key))
    table = Table("service", "state", "")
    refused = f"its newest settings are refused: {readiness.refused}" if readiness.refused else ""
    table.add_row("gateway", "[green]answers[/]", escape(refused))
    for service in readiness.services:
        state = "[green]ready[/]" if service.ready else "[red]not ready[/]"
        table.add_row(escape(service.name), state, escape(service.reason or notes.get(service.name, "")))
        for endpoint in service.endpoints:
            table.add_row(f"  {escape(endpoint.address)}", _health(endpoint), escape(_breaker(endpoint)))
    console.print(table)
    return readiness.ready


def _health(endpoint: EndpointState) -> str:
    colour = "green" if endpoint.health == "serving" else "red"
    return f"[{colour}]{escape(endpoint.health.replace('_', ' '))}[/]"


def _breaker(endpoint: EndpointState) -> str:
    """What its circuit breaker does, and how much it has to do."""
    parts = [f"{endpoint.calls_in_flight} in flight", f"breaker {endpoint.breaker.replace('_', ' ')}"]
    if endpoint.breaker == "open":
        parts.append(f"next probe in {endpoint.next_probe_s:.0f} s")
    if endpoint.trips:
        parts.append(f"opened {endpoint.trips} time{'s' * (endpoint.trips > 1)}")
    return ", ".join(parts)


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
