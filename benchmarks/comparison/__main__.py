"""`python -m benchmarks.comparison --against CHECKOUT`: compares the speed of this checkout with another one.

Both run at the same time, and their windows alternate, so that a change of the machine's speed affects both alike.
Ratios are taken within a round; the tables show their medians.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.client_layer.measure import instant_service
from benchmarks.comparison.variants import CLIENT_LAYER, EMBEDDING, GATEWAY, GRPC
from benchmarks.data.inputs import Request
from benchmarks.data.texts import passages
from benchmarks.load_generator.senders import over_grpc, over_http
from benchmarks.load_generator.spans import numbers
from benchmarks.markdown import table
from benchmarks.paths import ROOT
from benchmarks.plan import Length
from benchmarks.systems.footprint import answers
from benchmarks.systems.processes import ChildFailedError
from benchmarks.systems.stack import servers_up, with_environment
from benchmarks.systems.worker_process import WorkerProcess
from torchless.cli.bentos import pythons_in
from torchless.cli.errors import StackError
from torchless.cli.free_ports import free_port
from torchless.cli.services import StackSettings, stack_services

_IN_FLIGHT = (1, 32)
_WINDOWS_S = {CLIENT_LAYER: 0.25, EMBEDDING: 2.0}
_TEXTS = 2048
_TIMEOUT_S = 120.0
_NO_CACHE = {"TORCHLESS_GATEWAY_CACHE__ENABLED": "false"}
Figures = Mapping[str, float]
"""The figures of one window, by name: requests per second, median latency, and for clients CPU time per call."""
Results = Mapping[tuple[str, int], Mapping[str, Sequence[Figures]]]
"""The figures of each round, by variant and requests in flight, then by checkout."""
Time = Callable[[str, int, float], Figures]
"""Times one window: variant, requests in flight, seconds."""


class _Part(StrEnum):
    CLIENTS = "clients"
    EMBEDDING = "embedding"


def compare(
    against: Annotated[Path, typer.Option(help="The other checkout; must have its environments in .venv.")],
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Windows of each checkout per variant and load.")] = 15,
    scale: Annotated[float, typer.Option(min=0.05, help="Factor of the windows' length.")] = 1.0,
    only: Annotated[_Part | None, typer.Option(help="Compare one part.")] = None,
) -> None:
    """Compare the clients and the embedding path of this checkout with those of another one, in one run."""
    checkouts = {"this": ROOT, "other": against.resolve()}
    try:
        if only is not _Part.EMBEDDING:
            with clients_up(checkouts) as timers:
                print(to_markdown("Clients", measure(timers, CLIENT_LAYER, rounds, scale)))
        if only is not _Part.CLIENTS:
            with stacks_up(checkouts) as timers:
                print(to_markdown("Embedding", measure(timers, EMBEDDING, rounds, scale)))
    except (ChildFailedError, StackError) as error:
        print(f"The comparison stopped: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def measure(timers: Mapping[str, Time], variants: tuple[str, ...], rounds: int, scale: float) -> Results:
    """Times every variant under every load; the checkouts alternate, in reverse order every other round."""
    found: dict[tuple[str, int], dict[str, list[Figures]]] = defaultdict(lambda: defaultdict(list))
    for number, variant, in_flight in product(range(rounds), variants, _IN_FLIGHT):
        for checkout in timers if number % 2 else reversed(list(timers)):
            figures = timers[checkout](variant, in_flight, scale * _WINDOWS_S[variants])
            found[variant, in_flight][checkout].append(figures)
    return found


@contextmanager
def clients_up(checkouts: Mapping[str, Path]) -> Iterator[Mapping[str, Time]]:
    """Connects the clients of each checkout to one service that answers at once."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        logs, port = Path(folder), free_port()
        running.enter_context(servers_up([instant_service([port])], logs))
        timers = {}
        for name, checkout in checkouts.items():
            python = pythons_in(checkout / ".venv")["gateway"]
            arguments = (str(checkout), f"127.0.0.1:{port}")
            caller = WorkerProcess(python, "benchmarks.comparison.caller", logs / f"{name}.log", arguments)
            timers[name] = partial(_time_client, running.enter_context(caller))
        yield timers


def _time_client(caller: WorkerProcess, variant: str, in_flight: int, seconds: float) -> Figures:
    job = {"variant": variant, "in_flight": in_flight, "warm_up_s": seconds / 5, "seconds": seconds}
    figures: Figures = caller.ask(job, _TIMEOUT_S)
    return figures


@contextmanager
def stacks_up(checkouts: Mapping[str, Path]) -> Iterator[Mapping[str, Time]]:
    """Runs the embedding service and the gateway of each checkout, and one load generator for both."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        load = WorkerProcess(Path(sys.executable), "benchmarks.load_generator.load", Path(folder) / "load.log")
        running.enter_context(load)
        timers = {}
        for name, checkout in checkouts.items():
            state = Path(folder) / name
            state.mkdir()
            pythons = pythons_in(checkout / ".venv")
            settings = StackSettings.on_free_ports(checkout, state, pythons, metrics=False)
            services = {service.name: service for service in stack_services(settings)}
            live = partial(answers, settings.gateway_port, "/health/live")
            gateway = replace(with_environment(services["gateway"], _NO_CACHE), ready=live)
            running.enter_context(servers_up([services["embedding"], gateway], state, checkout))
            targets = {
                GRPC: over_grpc("embedding", settings.ports["embedding"]),
                GATEWAY: over_http("base64", settings.gateway_port, "/v1/embeddings", ""),
            }
            timers[name] = partial(_time_service, load, targets)
        yield timers


def _time_service(
    load: WorkerProcess, targets: Mapping[str, dict[str, Any]], variant: str, in_flight: int, seconds: float
) -> Figures:
    requests = [Request([text]).to_json() for text in passages(_TEXTS, Length.SHORT, seed=1)]
    job = {"do": "time", "target": targets[variant], "requests": requests, "in_flight": in_flight}
    spans = load.ask({**job, "warm_up_s": seconds / 4, "seconds": seconds}, _TIMEOUT_S)
    found = numbers([(sent, done) for sent, done in spans], seconds)
    return {"requests/s": found.per_second, "p50 ms": found.p50_ms}


def to_markdown(title: str, found: Results) -> str:
    """A table with the medians of both checkouts and of their ratio within a round, in brackets its least and most."""
    figures = list(next(iter(found.values()))["this"][0])
    rows = []
    for (variant, in_flight), windows in found.items():
        row = [variant, str(in_flight)]
        for figure in figures:
            this, other = ([window[figure] for window in windows[name]] for name in ("this", "other"))
            ratios = [mine / theirs for mine, theirs in zip(this, other, strict=True)]
            row += [f"{median(this):.4g}", f"{median(other):.4g}"]
            row.append(f"{median(ratios):.3f} ({min(ratios):.2f}-{max(ratios):.2f})")
        rows.append(row)
    head = [cell for figure in figures for cell in (figure, "other", "ratio")]
    return f"## {title}\n\n{table(('variant', 'in flight', *head), rows)}\n"


if __name__ == "__main__":
    typer.run(compare)
