"""The services of the stack: what starts each one, where it listens, and how it is asked whether it is ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torchless.cli.errors import StackError
from torchless.cli.readiness import capability_ready, gateway_ready
from torchless.clients.base import CapabilityClient
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.gpu import GPUClient
from torchless.clients.reranking import RerankingClient

ANY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104  # what a user may ask for, to be reached over another address


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port that a service listens on."""

    number: int
    """1 to 65535."""
    option: str
    """The option of `torchless up` that moves it."""
    host: str = "127.0.0.1"
    """The interface."""


@dataclass(frozen=True, slots=True)
class Service:
    """One program of the stack."""

    name: str
    """Lower-case letters and dashes: names its log and its process."""
    command: tuple[str, ...]
    """The program, by its full path, and its arguments."""
    ready: Callable[[], Awaitable[bool]]
    """Asks it, within a second or two, whether it serves; a service that does not answer is not ready."""
    ports: tuple[Port, ...] = ()
    """Every port that it listens on."""
    urls: Mapping[str, str] = field(default_factory=dict)
    """What is shown to the user: what an address is for, and the address."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables on top of those of the user."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """How the stack is laid out on this machine."""

    project: Path
    """The checkout: holds `gateway/` and `bentos/`."""
    state: Path
    """Folder for what services keep: the GPU service's leases."""
    gateway_python: Path
    """Python of the environment without torch."""
    bentos_python: Path
    """Python of the environment with torch."""
    gpu_python: Path
    """Python of the GPU service's environment."""
    host: str = "127.0.0.1"
    """The interface that the services listen on."""
    gateway_port: int = 3000
    """Port of the gateway's HTTP API."""
    embedding_port: int = 50051
    """Port of the embedding service's gRPC API."""
    reranking_port: int = 50052
    """Port of the reranking service's gRPC API."""
    gpu_port: int = 50056
    """Port of the GPU service's gRPC API."""
    metrics_port: int = 9101
    """First of the ports of the services' Prometheus metrics, on loopback: embedding's, then reranking's, then the GPU
    service's. 0: none."""

    @property
    def reached_at(self) -> str:
        """The host under which programs on this machine reach the services."""
        return "127.0.0.1" if self.host in ANY_INTERFACE else self.host

    @property
    def gateway_url(self) -> str:
        """Base URL of the gateway."""
        return f"http://{self.reached_at}:{self.gateway_port}"

    def address(self, port: int) -> str:
        """gRPC address of the service on `port`."""
        return f"{self.reached_at}:{port}"


def stack_services(settings: StackSettings) -> tuple[Service, ...]:
    """The services of the stack, in the order in which they start; they stop in the opposite one.

    Raises:
        StackError: A program or an environment is not there.
    """
    if not (settings.project / "gateway/service.py").is_file():
        raise StackError(f"gateway/service.py is not in {settings.project}: run this from a checkout of torchless")
    for python, option in (
        (settings.gateway_python, "--gateway-python"),
        (settings.bentos_python, "--bentos-python"),
        (settings.gpu_python, "--gpu-python"),
    ):
        if not python.is_file():
            raise StackError(f"{python} is not there: run `make demo` once, or name another with {option}")
    leases = {"TORCHLESS_GPU_STORE": str(settings.state.resolve() / "gpu-leases.sqlite3")}
    return (
        # First: others may take a lease of it.
        _bento(settings, GPUClient, settings.gpu_python, settings.gpu_port, metrics_place=2, environment=leases),
        _bento(settings, EmbeddingClient, settings.bentos_python, settings.embedding_port, metrics_place=0),
        _bento(settings, RerankingClient, settings.bentos_python, settings.reranking_port, metrics_place=1),
        _gateway(settings),
    )


def _bento(
    settings: StackSettings,
    client: type[CapabilityClient],
    python: Path,
    port: int,
    *,
    metrics_place: int,
    environment: Mapping[str, str] | None = None,
) -> Service:
    """The service that `client` calls; its metrics stand at `metrics_place` of the metrics' ports."""
    name = client.capability
    serve = ("bentoml", "serve-grpc", f"bentos.{name}.service:svc", "--api-workers", "1", "--enable-reflection")
    address = settings.address(port)
    metrics = Port(settings.metrics_port and settings.metrics_port + metrics_place, "--metrics-port")
    urls = {"gRPC": address}
    if metrics.number:
        urls["metrics"] = f"http://127.0.0.1:{metrics.number}/metrics"
    return Service(
        name=name,
        command=(str(python), "-m", *serve, *_listen(settings.host, port)),
        ready=partial(capability_ready, client, address),
        ports=(Port(port, f"--{name}-port", settings.host), *((metrics,) if metrics.number else ())),
        urls=urls,
        environment={f"TORCHLESS_{name.upper()}_METRICS_PORT": str(metrics.number), **(environment or {})},
    )


def _gateway(settings: StackSettings) -> Service:
    serve = ("bentoml", "serve", "gateway.service:Gateway")
    return Service(
        name="gateway",
        command=(str(settings.gateway_python), "-m", *serve, *_listen(settings.host, settings.gateway_port)),
        ready=partial(gateway_ready, settings.gateway_url),
        ports=(Port(settings.gateway_port, "--gateway-port", settings.host),),
        urls={"HTTP API": settings.gateway_url, "documentation": f"{settings.gateway_url}/docs"},
        environment={
            "TORCHLESS_GATEWAY_EMBEDDING__ADDRESS": settings.address(settings.embedding_port),
            "TORCHLESS_GATEWAY_RERANKING__ADDRESS": settings.address(settings.reranking_port),
            "TORCHLESS_GATEWAY_GPU__ADDRESS": settings.address(settings.gpu_port),
        },
    )


def _listen(host: str, port: int) -> tuple[str, ...]:
    return ("--host", host, "--port", str(port))
