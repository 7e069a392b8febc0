"""The programs of the stack: how each is started, where it listens, and how to check that it is ready."""

from __future__ import annotations

import pkgutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torchless.cli.bentos import BENTOS, GATEWAY, METRICS, METRICS_PORT, Bento, variable_prefix
from torchless.cli.errors import StackError
from torchless.cli.free_ports import free_ports
from torchless.cli.ports import Port
from torchless.cli.readiness import capability_ready, gateway_ready

_ANY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104  # a user may choose it


@dataclass(frozen=True, slots=True)
class Service:
    """One program of the stack."""

    name: str
    """Lower-case letters and dashes: names its log and its process."""
    command: tuple[str, ...]
    """The program, by its full path, and its arguments."""
    ready: Callable[[], Awaitable[bool]]
    """Whether it serves now; answers within a second or two."""
    ports: tuple[Port, ...] = ()
    """Every port that it listens on."""
    urls: Mapping[str, str] = field(default_factory=dict)
    """The addresses that are shown to the user, by their purpose."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables on top of the user's."""
    config: Path | None = None
    """The settings file that it reads; None: it has only defaults and the environment."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """The layout of the stack on this machine."""

    project: Path
    """The checkout, which holds `gateway/` and `bentos/`."""
    state: Path
    """Folder for what services store, such as the leases of the GPU service."""
    pythons: Mapping[str, Path]
    """Python of each environment: `gateway`, and the environments of the services."""
    host: str = "127.0.0.1"
    """The interface that the services listen on."""
    gateway_port: int = 3000
    """Port of the gateway's HTTP API."""
    ports: Mapping[str, int] = field(default_factory=lambda: {bento.name: bento.port for bento in BENTOS})
    """Port of each service's gRPC API, by the service's name."""
    metrics_port: int = METRICS_PORT
    """First of the consecutive ports of the services' Prometheus metrics, on 127.0.0.1. 0: no metrics."""
    configs: Mapping[str, Path] = field(default_factory=dict)
    """Settings files, by the service's name. The user's environment may name those of the others."""

    @classmethod
    def on_free_ports(cls, project: Path, state: Path, pythons: Mapping[str, Path], *, metrics: bool) -> StackSettings:
        """The layout of a stack that does not disturb a running one.

        Args:
            project: See the class.
            state: See the class; must be another folder than that of the running stack.
            pythons: See the class.
            metrics: Whether the services serve metrics.
        """
        gateway, *ports = free_ports(1 + 2 * len(BENTOS))
        names = [bento.name for bento in BENTOS]
        return cls(
            project=project,
            state=state,
            pythons=pythons,
            gateway_port=gateway,
            ports=dict(zip(names, ports, strict=False)),
            metrics_port=ports[len(BENTOS)] if metrics else 0,
        )

    @property
    def local_host(self) -> str:
        """The host at which programs on this machine reach the services."""
        return "127.0.0.1" if self.host in _ANY_INTERFACE else self.host

    @property
    def gateway_url(self) -> str:
        """Base URL of the gateway."""
        return f"http://{self.local_host}:{self.gateway_port}"

    def address(self, name: str) -> str:
        """`host:port` of a service's gRPC API."""
        return f"{self.local_host}:{self.ports[name]}"

    def metrics_port_of(self, bento: Bento) -> int:
        """Port of a service's metrics; 0: no metrics."""
        return self.metrics_port and self.metrics_port + bento.metrics_offset


def stack_services(settings: StackSettings) -> tuple[Service, ...]:
    """The programs of the stack, in the order in which they start; they stop in reverse order.

    Raises:
        StackError: The gateway's code or the Python of an environment does not exist.
    """
    if not (settings.project / "gateway/service.py").is_file():
        raise StackError(f"gateway/service.py is not in {settings.project}: run this from a checkout of torchless")
    for environment, python in settings.pythons.items():
        if not python.is_file():
            raise StackError(
                f"{python} does not exist: run `make demo` once, or choose another with --python {environment}=PATH"
            )
    return (*(_bento(settings, bento) for bento in BENTOS), _gateway(settings))


def _bento(settings: StackSettings, bento: Bento) -> Service:
    name, address, metrics = bento.name, settings.address(bento.name), settings.metrics_port_of(bento)
    serve = ("bentoml", "serve-grpc", f"bentos.{name}.service:svc", "--api-workers", "1", "--enable-reflection")
    ports, urls = [Port(settings.ports[name], name, settings.host)], {"gRPC": address}
    if metrics:
        ports.append(Port(metrics, METRICS))
        urls["metrics"] = f"http://127.0.0.1:{metrics}/metrics"
    state = {key: str(settings.state.resolve() / file) for key, file in bento.state_files.items()}
    variables = {"METRICS_PORT": str(metrics), **state}
    config = settings.configs.get(name)
    return Service(
        name=name,
        command=(*_python(settings, bento.environment), *serve, *_listen(settings.host, settings.ports[name])),
        ready=partial(capability_ready, pkgutil.resolve_name(bento.client), address),
        ports=tuple(ports),
        urls=urls,
        environment={f"{bento.prefix}{key}": value for key, value in variables.items()}
        | _config_variable(name, config),
        config=config,
    )


def _gateway(settings: StackSettings) -> Service:
    serve = ("bentoml", "serve", "gateway.service:Gateway")
    config = settings.configs.get(GATEWAY)
    addresses = {
        f"{variable_prefix(GATEWAY)}{each.name.upper()}__ADDRESS": settings.address(each.name) for each in BENTOS
    }
    return Service(
        name=GATEWAY,
        command=(*_python(settings, GATEWAY), *serve, *_listen(settings.host, settings.gateway_port)),
        ready=partial(gateway_ready, settings.gateway_url),
        ports=(Port(settings.gateway_port, GATEWAY, settings.host),),
        urls={"HTTP API": settings.gateway_url, "documentation": f"{settings.gateway_url}/docs"},
        environment=addresses | _config_variable(GATEWAY, config),
        config=config,
    )


def _config_variable(name: str, config: Path | None) -> dict[str, str]:
    return {} if config is None else {f"{variable_prefix(name)}CONFIG": str(config)}


def _python(settings: StackSettings, environment: str) -> tuple[str, str]:
    return str(settings.pythons[environment]), "-m"


def _listen(host: str, port: int) -> tuple[str, ...]:
    return ("--host", host, "--port", str(port))
