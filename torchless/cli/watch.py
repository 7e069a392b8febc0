"""`torchless status --watch`: the status and the traffic of the gateway, again and again."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from torchless.cli.gateway_api import GatewayClient, GatewayError
from torchless.cli.status import Status, ask, to_json, to_table
from torchless.cli.traffic import Reading, RouteTraffic, between, queue_ms, read


@dataclass(frozen=True, slots=True)
class Moment:
    """What is shown at one moment."""

    status: Status
    in_flight: float
    """Requests in progress."""
    queue_ms: tuple[float, float]
    """Median and 95th percentile of the time in the queue of a service, since the moment before."""
    routes: Sequence[RouteTraffic]
    """The traffic since the moment before."""


async def watch(gateway: GatewayClient, console: Console, interval_s: float) -> None:
    """Shows the status until it is cancelled; without a terminal it prints a table at each interval.

    Raises:
        GatewayError: The gateway does not answer at the start. Later that is shown, and it is asked again.
    """
    if not console.is_terminal:
        async for moment in _moments(gateway, interval_s):
            console.print(_view(moment))
        return
    with Live(console=console, auto_refresh=False) as live:
        async for moment in _moments(gateway, interval_s):
            live.update(_view(moment), refresh=True)


async def watch_json(gateway: GatewayClient, interval_s: float) -> None:
    """Prints one JSON object per line at each interval, until it is cancelled; see `watch`."""
    async for moment in _moments(gateway, interval_s):
        print(json.dumps(moment if isinstance(moment, dict) else _json(moment)), flush=True)


async def _moments(gateway: GatewayClient, interval_s: float) -> AsyncIterator[Moment | dict[str, Any]]:
    """The moments; `{"error": ...}` while the gateway does not answer."""
    earlier: Reading | None = None
    while True:
        try:
            status = await ask(gateway)
            reading = read(await gateway.metrics(), time.monotonic())
        except GatewayError as error:
            if earlier is None:
                raise
            yield {"error": str(error)}
        else:
            earlier = earlier or reading
            yield Moment(status, reading.in_flight, queue_ms(earlier, reading), between(earlier, reading))
            earlier = reading
        await asyncio.sleep(interval_s)


def _view(moment: Moment | dict[str, Any]) -> Group:
    if isinstance(moment, dict):
        return Group(Text(moment["error"], style="red"))
    table = Table("route", "requests/s", "429 and 5xx/s", "p50 ms", "p95 ms")
    for each in moment.routes:
        figures = (each.requests_per_s, each.failed_per_s, each.p50_ms, each.p95_ms)
        table.add_row(escape(each.route), *(f"{figure:.1f}" for figure in figures))
    p50, p95 = moment.queue_ms
    queue = "nothing was computed" if math.isnan(p50) else f"waiting for the device: p50 {p50:.1f} ms, p95 {p95:.1f} ms"
    return Group(to_table(moment.status), Text(f"{moment.in_flight:.0f} requests in progress; {queue}"), table)


def _json(moment: Moment) -> dict[str, Any]:
    p50, p95 = moment.queue_ms
    return {
        **to_json(moment.status),
        "requests_in_flight": moment.in_flight,
        "queue_p50_ms": _number(p50),
        "queue_p95_ms": _number(p95),
        "routes": [{name: _number(value) for name, value in asdict(each).items()} for each in moment.routes],
    }


def _number(value: Any) -> Any:
    """NaN, which JSON does not have, as None."""
    return None if isinstance(value, float) and math.isnan(value) else value
