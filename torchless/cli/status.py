"""`torchless status`: the health of the services, as the gateway reports it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from torchless.cli.gateway_api import EndpointState, GatewayClient, GatewayError, Readiness

_DETAILS: Mapping[str, Callable[[GatewayClient], Awaitable[str]]] = {"gpu": GatewayClient.gpus}
"""For services with more to show than their health: what asks the gateway for it."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the gateway reports at one moment."""

    readiness: Readiness
    """The gateway and its services."""
    notes: Mapping[str, str]
    """Details of ready services, by name."""


async def ask(gateway: GatewayClient) -> Status:
    """Asks the gateway for its status. Health needs no API key; some details do.

    Raises:
        GatewayError: The gateway does not answer.
    """
    readiness = await gateway.readiness()
    ready = [service.name for service in readiness.services if service.ready and service.name in _DETAILS]
    return Status(readiness, {name: await _detail(gateway, name) for name in ready})


def to_table(status: Status) -> Table:
    """One row for the gateway, each service and each endpoint."""
    readiness, notes = status.readiness, status.notes
    table = Table("service", "state", "")
    refused = f"refused its newest settings: {readiness.refused}" if readiness.refused else ""
    table.add_row("gateway", "[green]answers[/]", escape(refused))
    for service in readiness.services:
        state = "[green]ready[/]" if service.ready else "[red]not ready[/]"
        table.add_row(escape(service.name), state, escape(service.reason or notes.get(service.name, "")))
        for endpoint in service.endpoints:
            address = escape(endpoint.address or "(address: needs a key)")
            table.add_row(f"  {address}", _health(endpoint), escape(_breaker(endpoint)))
    return table


def to_json(status: Status) -> dict[str, Any]:
    """The same for programs."""
    readiness = status.readiness
    return {
        "ready": readiness.ready,
        "settings_refused": readiness.refused or None,
        "services": {
            service.name: {
                "ready": service.ready,
                "reason": service.reason or None,
                "note": status.notes.get(service.name),
                "endpoints": [asdict(endpoint) for endpoint in service.endpoints],
            }
            for service in readiness.services
        },
    }


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


async def _detail(gateway: GatewayClient, name: str) -> str:
    try:
        return await _DETAILS[name](gateway)
    except GatewayError as error:  # the health of the services is worth showing in any case
        return f"details are not available: {error}"
