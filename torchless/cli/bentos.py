"""The services that `torchless up` starts behind the gateway. A new capability is one more row of `BENTOS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GATEWAY = "gateway"
"""Name of the gateway among the services."""


def variable_prefix(name: str) -> str:
    """Prefix of the environment variables with the settings of a service."""
    return f"TORCHLESS_{name.upper()}_"


@dataclass(frozen=True, slots=True)
class Bento:
    """One service, served from `bentos/<name>/service.py`."""

    name: str
    """The capability in lower-case letters; also names the service's process, log, options and settings."""
    client: str
    """The client that calls it, as `module:class`."""
    port: int
    """Default port of its gRPC API."""
    metrics_offset: int
    """Which of the metrics ports is its own, counted from 0."""
    environment: str = "bentos"
    """The Python environment that it runs in: a folder of `.venv`."""
    title: str = ""
    """Its name in help texts; empty: `name`."""
    state_files: Mapping[str, str] = field(default_factory=dict)
    """Settings that name a file in the state folder, and the file's name."""

    @property
    def label(self) -> str:
        """Its name in help texts."""
        return self.title or self.name

    @property
    def prefix(self) -> str:
        """Prefix of the environment variables with its settings."""
        return variable_prefix(self.name)


BENTOS = (
    # First, because the others may lease devices from it.
    Bento(
        "gpu",
        client="torchless.clients.gpu:GPUClient",
        port=50056,
        metrics_offset=2,
        environment="gpu",
        title="GPU",
        state_files={"STORE": "gpu-leases.sqlite3"},
    ),
    Bento("embedding", client="torchless.clients.embedding:EmbeddingClient", port=50051, metrics_offset=0),
    Bento("reranking", client="torchless.clients.reranking:RerankingClient", port=50052, metrics_offset=1),
)
"""The services, in the order in which they start; they stop in reverse order."""
METRICS = "metrics"
"""Name of the first metrics port among the ports of services."""
METRICS_PORT = 9101
"""Default of the first metrics port."""
ENVIRONMENTS = tuple(sorted({bento.environment for bento in BENTOS}))
"""Folders of `.venv` with the Python environments of the services."""


def pythons_in(folder: Path) -> dict[str, Path]:
    """Python of the environments of the gateway and the services; `folder` holds them, in a checkout `.venv`."""
    return {environment: folder / environment / "bin/python" for environment in ("gateway", *ENVIRONMENTS)}
