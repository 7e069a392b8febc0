"""The services of the stack: what starts each one, where it listens, and how it is asked whether it is ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torchless.cli.errors import StackError
from torchless.cli.readiness import embedding_ready, gateway_ready

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
    gateway_python: Path
    """Python of the environment without torch."""
    bentos_python: Path
    """Python of the environment with torch."""
    host: str = "127.0.0.1"
    """The interface that the services listen on."""
    gateway_port: int = 3000
    """Port of the gateway's HTTP API."""
    embedding_port: int = 50051
    """Port of the embedding service's gRPC API."""
    metrics_port: int = 9101
    """Port of the embedding service's Prometheus metrics, on loopback; 0: none."""

    @property
    def reached_at(self) -> str:
        """The host under which programs on this machine reach the services."""
        return "127.0.0.1" if self.host in ANY_INTERFACE else self.host

    @property
    def gateway_url(self) -> str:
        """Base URL of the gateway."""
        return f"http://{self.reached_at}:{self.gateway_port}"

    @property
    def embedding_address(self) -> str:
        """gRPC address of the embedding service."""
        return f"{self.reached_at}:{self.embedding_port}"


def stack_services(settings: StackSettings) -> tuple[Service, ...]:
    """The services of the stack, in the order in which they start; they stop in the opposite one.

    Raises:
        StackError: A program or an environment is not there.
    """
    for module in ("gateway/service.py", "bentos/embedding/service.py"):
        if not (settings.project / module).is_file():
            raise StackError(f"{module} is not in {settings.project}: run this from a checkout of torchless")
    for python, option in ((settings.gateway_python, "--gateway-python"), (settings.bentos_python, "--bentos-python")):
        if not python.is_file():
            raise StackError(f"{python} is not there: run `make demo` once, or name another with {option}")
    return (_embedding(settings), _gateway(settings))


def _embedding(settings: StackSettings) -> Service:
    serve = ("bentoml", "serve-grpc", "bentos.embedding.service:svc", "--api-workers", "1", "--enable-reflection")
    metrics = Port(settings.metrics_port, "--metrics-port")
    urls = {"gRPC": settings.embedding_address}
    if metrics.number:
        urls["metrics"] = f"http://127.0.0.1:{metrics.number}/metrics"
    return Service(
        name="embedding",
        command=(str(settings.bentos_python), "-m", *serve, *_listen(settings.host, settings.embedding_port)),
        ready=partial(embedding_ready, settings.embedding_address),
        ports=(
            Port(settings.embedding_port, "--embedding-port", settings.host),
            *((metrics,) if metrics.number else ()),
        ),
        urls=urls,
        environment={"TORCHLESS_EMBEDDING_METRICS_PORT": str(settings.metrics_port)},
    )


def _gateway(settings: StackSettings) -> Service:
    serve = ("bentoml", "serve", "gateway.service:Gateway")
    return Service(
        name="gateway",
        command=(str(settings.gateway_python), "-m", *serve, *_listen(settings.host, settings.gateway_port)),
        ready=partial(gateway_ready, settings.gateway_url),
        ports=(Port(settings.gateway_port, "--gateway-port", settings.host),),
        urls={"HTTP API": settings.gateway_url, "documentation": f"{settings.gateway_url}/docs"},
        environment={"TORCHLESS_GATEWAY_EMBEDDING__ADDRESS": settings.embedding_address},
    )


def _listen(host: str, port: int) -> tuple[str, ...]:
    return ("--host", host, "--port", str(port))
