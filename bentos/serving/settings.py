"""Settings that every bento shares."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchless.settings import ProgramSettings


class ServingSettings(ProgramSettings):
    """How a bento is served; each bento's own settings extend these."""

    env_prefix = "TORCHLESS_SERVING_"

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log lines written."""
    metrics_host: str = "127.0.0.1"
    """Address on which Prometheus metrics are served over HTTP. Loopback unless told otherwise."""
    metrics_port: int = Field(default=9101, ge=0, le=65_535)
    """Port of the metrics; 0: none are served."""
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    """Largest gRPC message received or sent, in MiB; a larger one is refused while it is read."""
    drain_delay_s: float = Field(default=0.0, ge=0, le=300)
    """Time between NOT_SERVING and refusing new calls on SIGTERM, in seconds, so that balancers notice first."""
    drain_grace_s: float = Field(default=30.0, ge=0, le=3600)
    """Time that calls in flight have to finish on SIGTERM, in seconds."""
