"""Brings up everybody who is measured, and keeps them up until all is measured."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.contestants import GRPC, Contestant, Direct, Served, over_grpc, over_http
from benchmarks.footprint import answers
from benchmarks.processes import ROOT, Server, free_port
from benchmarks.station import Station
from torchless.cli.services import Service, StackSettings, stack_services

LOAD = "load generator"
_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_START_S = 180.0


@dataclass(frozen=True, slots=True)
class Interpreters:
    """Python of each environment."""

    gateway: Path
    bentos: Path
    peers: Path


@dataclass(frozen=True, slots=True)
class Stack:
    """Everybody, up and idle."""

    contestants: Sequence[Contestant]
    """The direct call first."""
    direct: Direct
    """The direct call."""
    trees: dict[str, int]
    """Id of the root of each process tree, by name."""
    metrics_port: int
    """Where the embedding service's metrics are."""


class Layout:
    """Commands, addresses and logs of the run; every port is a free one, so that a stack that is up stays untouched."""

    def __init__(self, interpreters: Interpreters, logs: Path) -> None:
        self.interpreters = interpreters
        self.logs = logs
        self.settings = StackSettings(
            project=ROOT,
            gateway_python=interpreters.gateway,
            bentos_python=interpreters.bentos,
            gateway_port=free_port(),
            embedding_port=free_port(),
            metrics_port=free_port(),
        )
        self.embedding, self.gateway = stack_services(self.settings)
        self.peer_port = free_port()

    def peer(self, weights: str) -> Service:
        """infinity on the folder `weights`, with its own defaults but for the device.

        Its BetterTransformer does not go with its transformers. Its access log is off, as ours is.
        """
        command = (str(self.interpreters.peers.parent / "infinity_emb"), "v2", "--model-id", weights)
        listen = ("--host", "127.0.0.1", "--port", str(self.peer_port))
        options = ("--device", "cpu", "--no-bettertransformer", "--served-model-name", _MODEL, "--log-level", "warning")
        return Service(
            name="infinity",
            command=(*command, *listen, *options),
            ready=partial(answers, self.peer_port, "/health"),
        )


@contextmanager
def stack_up(layout: Layout, *, peer: bool) -> Iterator[Stack]:
    """Starts the direct call, the services and the load generator; stops them all at the end."""
    ports = layout.settings
    with ExitStack() as running:
        load = running.enter_context(Station(Path(sys.executable), "benchmarks.load", layout.logs / "load.log"))
        station = Station(layout.interpreters.bentos, "benchmarks.direct", layout.logs / "direct.log")
        direct = Direct(running.enter_context(station))
        weights = direct.station.ask({"do": "facts", "texts": {}}, _START_S)["folder"]
        services = [layout.embedding, layout.gateway, *([layout.peer(weights)] if peer else [])]
        servers = {s.name: running.enter_context(_server(s, layout.logs)) for s in services}
        for service in services:
            servers[service.name].wait(partial(_ready, service), _START_S)
        contestants: list[Contestant] = [
            direct,
            Served(GRPC, frozenset({"embedding"}), load, over_grpc(ports.embedding_port)),
            *_over_http("gateway", {"embedding", "gateway"}, load, ports.gateway_port, "/v1/embeddings"),
        ]
        if peer:
            contestants += _over_http("infinity", {"infinity"}, load, layout.peer_port, "/embeddings")
        trees = {direct.name: direct.station.pid, LOAD: load.pid, **{name: s.pid for name, s in servers.items()}}
        yield Stack(contestants, direct, trees, ports.metrics_port)


def _over_http(name: str, processes: set[str], load: Station, port: int, path: str) -> list[Served]:
    return [
        Served(f"{name}, {encoding}", frozenset(processes), load, over_http(port, path, encoding, _MODEL))
        for encoding in ("base64", "float")
    ]


def _server(service: Service, logs: Path) -> Server:
    return Server(service.command, service.environment, logs / f"{service.name}.log")


def _ready(service: Service) -> bool:
    async def ask() -> bool:
        return await service.ready()

    return asyncio.run(ask())
