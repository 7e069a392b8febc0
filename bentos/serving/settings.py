"""Settings that all bentos share."""

from __future__ import annotations

from pydantic import Field

from torchless.settings import LogSettings, ProgramSettings


class ServingSettings(ProgramSettings):
    """How a bento is served; each bento's own settings extend these."""

    env_prefix = "TORCHLESS_SERVING_"

    log: LogSettings = LogSettings()
    """The log."""
    metrics_host: str = "127.0.0.1"
    """Address on which Prometheus metrics are served over HTTP."""
    metrics_port: int = Field(default=9101, ge=0, le=65_535)
    """Port of the metrics; 0: no metrics are served."""
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    """Largest gRPC message received or sent, in MiB."""
    failure_exit_s: float = Field(default=5.0, ge=0, le=86_400)
    """Time between a failed start, or the loss of the device, and the exit of the process, in seconds. Health checks
    and calls get the reason meanwhile."""
    drain_delay_s: float = Field(default=0.0, ge=0, le=300)
    """Time between NOT_SERVING and refusing new calls on SIGTERM, in seconds, so that load balancers notice first."""
    drain_grace_s: float = Field(default=30.0, ge=0, le=3600)
    """Time for calls in flight to finish on SIGTERM, in seconds."""
