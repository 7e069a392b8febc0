"""`python -m benchmarks.request_path`: counts the files that one request runs through, without load.

Starts the gateway's application in this process, in front of services that answer at once from another process. Sends
each request a few times, so that one-time work is done, and traces the next one: every call into a Python file below
`gateway/` or `torchless/`, by any task of the event loop, from the moment the request enters the application until its
response is complete. A move is a call into another file than the call before it; a coroutine that continues counts as
a call. The counts are the same in every run.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.paths import ROOT
from benchmarks.request_path.trace import Trace
from benchmarks.systems.processes import Server
from torchless.cli.bentos import BENTOS
from torchless.cli.free_ports import free_port

_DOCUMENTS = ["The harbour pilot measured the spare valves.", "A tired courier forgot a box of letters."]
_REQUESTS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "POST /v1/embeddings, cache miss": ("/v1/embeddings", lambda number: {"input": f"text {number}"}),
    "POST /v1/embeddings, cache hit": ("/v1/embeddings", lambda _: {"input": "the same text"}),
    "POST /v2/rerank": ("/v2/rerank", lambda _: {"query": "Who measured the valves?", "documents": _DOCUMENTS}),
}
"""Path and body of each request; the body may depend on how often it was sent before."""
_WARM_UPS = 5
_START_S = 60.0


def request_path(
    checkout: Annotated[Path, typer.Option(help="Checkout whose gateway is traced.", show_default="this one")] = ROOT,
    *,
    files: Annotated[bool, typer.Option("--files", help="Also print the number of calls into each file.")] = False,
    order: Annotated[bool, typer.Option("--order", help="Also print the files in the order they run.")] = False,
) -> None:
    """Count the files that one request runs through, and the moves from file to file. Takes a few seconds."""
    with services_up() as address:
        _import_from(checkout)
        traces = asyncio.run(trace_requests(checkout, address))
    console = Console(highlight=False)
    counts = Table("request", "files", "moves", "calls")
    for name, trace in traces.items():
        counts.add_row(name, str(len(trace.files)), str(trace.moves), str(len(trace.calls)))
    console.print(counts)
    for name, trace in traces.items():
        if files:
            lines = (f"{calls:5}  {file}" for file, calls in trace.files.most_common())
            console.print(f"\n{name}: calls into each file", *lines, sep="\n")
        if order:
            console.print(f"\n{name}: files in order", *(f"  {stop}" for stop in trace.stops), sep="\n")


def _import_from(checkout: Path) -> None:
    """Makes later imports of `gateway` and `torchless` take the code of `checkout`."""
    sys.path.insert(0, str(checkout.resolve()))
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchless"]:
        del sys.modules[name]


@contextmanager
def services_up() -> Iterator[str]:
    """Runs services that answer at once, and gives their address."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.client_layer.instant_service", str(port)]
    with tempfile.TemporaryDirectory() as folder, Server(command, {}, Path(folder) / "services.log"):
        yield f"127.0.0.1:{port}"


async def trace_requests(checkout: Path, address: str) -> dict[str, Trace]:
    """Traces each request through the gateway of `checkout`, which must be what imports take.

    Args:
        checkout: The checkout.
        address: `host:port` of the services behind the gateway.
    """
    for name in [name for name in os.environ if name.startswith("TORCHLESS_")]:
        del os.environ[name]
    for bento in BENTOS:
        os.environ[f"TORCHLESS_GATEWAY_{bento.name.upper()}__ADDRESS"] = address
    # Of the gateway only this name is used, which older checkouts have as well.
    from gateway.service import application

    await application.open()
    try:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            async with asyncio.timeout(_START_S):
                while (await http.get("/health/ready")).status_code != httpx.codes.OK:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            return {name: await _traced(checkout, http, *request) for name, request in _REQUESTS.items()}
    finally:
        await application.close()


async def _traced(checkout: Path, http: httpx.AsyncClient, path: str, body: Callable[[int], dict[str, Any]]) -> Trace:
    for number in range(_WARM_UPS):
        (await http.post(path, json=body(number))).raise_for_status()
    with Trace(checkout) as trace:
        response = await http.post(path, json=body(_WARM_UPS))
    response.raise_for_status()
    return trace


if __name__ == "__main__":
    typer.run(request_path)
