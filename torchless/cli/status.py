"""`torchless status`: the health of the services, as the gateway reports it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.gateway_api import EndpointState, GatewayClient, GatewayError, Readiness

_DETAILS: Mapping[str, Callable[[GatewayClient], Awaitable[str]]] = {"gpu": GatewayClient.gpus}
"""For services with more to show than their health: what asks the gateway for it."""


def status(url: str, console: Console, *, key: str = "") -> bool:
    """Prints one row per service behind the gateway at `url`; returns whether all are ready.

    Health needs no API key; `key` is for the details that need one.

    Raises:
        GatewayError: The gateway does not answer.
    """
    readiness, notes = asyncio.run(_readiness(url, key))
    table = Table("service", "state", "")
    refused = f"refused its newest settings: {readiness.refused}" if readiness.refused else ""
    table.add_row("gateway", "[green]answers[/]", escape(refused))
    for service in readiness.services:
        state = "[green]ready[/]" if service.ready else "[red]not ready[/]"
        table.add_row(escape(service.name), state, escape(service.reason or notes.get(service.name, "")))
        for endpoint in service.endpoints:
            address = escape(endpoint.address or "(address: needs a key)")
            table.add_row(f"  {address}", _health(endpoint), escape(_breaker(endpoint)))
    console.print(table)
    return readiness.ready


def _health(endpoint: EndpointState) -> str:
    colour = "green" if endpoint.health == "serving" else "red"
    return f"[{colour}]{escape(endpoint.health.replace('_', ' '))}[/]"


def _breaker(endpoint: EndpointState) -> str:
    """The calls in flight and the state of the circuit breaker."""
    parts = [f"{endpoint.calls_in_flight} in flight", f"breaker {endpoint.breaker.replace('_', ' ')}"]
    if endpoint.breaker == "open":
        parts.append(f"next probe in {endpoint.next_probe_s:.0f} s")
    if endpoint.trips:
        parts.append(f"opened {endpoint.trips} time{'s' * (endpoint.trips > 1)}")
    return ", ".join(parts)


async def _readiness(url: str, key: str) -> tuple[Readiness, dict[str, str]]:
    """The state of the services, and details of the ready services by name."""
    async with GatewayClient(url, key=key, timeout_s=10.0) as gateway:
        readiness = await gateway.readiness()
        ready = [service.name for service in readiness.services if service.ready and service.name in _DETAILS]
        return readiness, {name: await _detail(gateway, name) for name in ready}


async def _detail(gateway: GatewayClient, name: str) -> str:
    try:
        return await _DETAILS[name](gateway)
    except GatewayError as error:  # the health of the services is worth showing in any case
        return f"details are not available: {error}"
