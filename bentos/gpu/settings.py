"""Settings of the GPU bento."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from bentos.serving.settings import ServingSettings
from torchless.settings import SettingsGroup


class DriverSettings(SettingsGroup):
    """How the driver is asked."""

    poll_interval_s: float = Field(default=1.0, ge=0.02, le=3600)
    """Seconds between readings of all devices."""
    max_reading_age_s: float = Field(default=0.2, ge=0, le=60)
    """Age of a reading above which the devices are read again before a lease is made, in seconds."""
    reopen_interval_s: float = Field(default=10.0, ge=0.02, le=3600)
    """Seconds between tries to open the driver again while it, or a device that was there, is missing."""
    timeout_s: float = Field(default=10.0, gt=0, le=600)
    """Time for one reading after which the driver counts as not answering, in seconds. Leases stand meanwhile."""


class ThresholdSettings(SettingsGroup):
    """What is worth an event. A threshold is left a little below where it is reached, so that it does not flutter."""

    memory_used_share: float | None = Field(default=0.95, gt=0, le=1)
    """Share of a device's memory in use, 0 to 1; none: not watched."""
    memory_margin: float = Field(default=0.05, ge=0, lt=1)
    """How far below that share the memory has to fall for the threshold to be left, 0 to 1."""
    temperature_c: float | None = Field(default=85.0, ge=0, le=200)
    """Temperature of a device, in degrees Celsius; none: not watched."""
    temperature_margin_c: float = Field(default=5.0, ge=0, le=100)
    """How far below that the temperature has to fall for the threshold to be left, in degrees Celsius."""
    ecc_uncorrected: int | None = Field(default=1, ge=1)
    """Uncorrected memory errors of a device since its driver was loaded; none: not watched."""


class WatchSettings(SettingsGroup):
    """Those who watch the status."""

    interval_s: float = Field(default=10.0, gt=0, le=86_400)
    """Seconds after which the status is sent again, for a caller that does not say."""
    min_interval_s: float = Field(default=0.5, gt=0, le=3600)
    """Shortest interval that a caller may ask for, in seconds."""
    max_interval_s: float = Field(default=3600.0, gt=0, le=86_400)
    """Longest interval that a caller may ask for, in seconds."""
    max_watchers: int = Field(default=64, ge=1, le=10_000)
    """Callers that may watch at once."""
    max_events: int = Field(default=256, ge=1, le=100_000)
    """Events kept for a caller that reads slowly; of more, the oldest are left out and counted."""

    @model_validator(mode="after")
    def _interval_in_range(self) -> Self:
        if not self.min_interval_s <= self.interval_s <= self.max_interval_s:
            raise ValueError("interval_s: not within min_interval_s and max_interval_s")
        return self


class GPUSettings(ServingSettings):
    """The GPU bento."""

    env_prefix = "TORCHLESS_GPU_"

    metrics_port: int = Field(default=9103, ge=0, le=65_535)
    """Port of the metrics; 0: none are served."""
    store: str = Field(default=".torchless/gpu-leases.sqlite3", min_length=1)
    """File that keeps the leases (SQLite), on a disk that outlives the process. One process of the service holds it."""
    reserve_mb: int = Field(default=512, ge=0)
    """Memory of each device, or MIG instance, that is never leased, in MiB: room for CUDA's own needs."""
    min_ttl_s: float = Field(default=5.0, gt=0)
    """Shortest time for which a lease may be asked, in seconds."""
    default_ttl_s: float = Field(default=300.0, gt=0)
    """Time for which a lease is given where the caller does not say, in seconds."""
    max_ttl_s: float = Field(default=86_400.0, gt=0, le=31_536_000)
    """Longest time for which a lease may be asked, in seconds."""
    max_allocations: int = Field(default=1024, ge=1, le=10_000)
    """Most leases at once."""
    max_waiting_calls: int = Field(default=1024, ge=1, le=100_000)
    """Calls that may wait for the leases at once; past it they are refused as OVERLOADED."""
    sweep_interval_s: float = Field(default=0.5, ge=0.02, le=60)
    """Seconds between looks for leases that ran out. They count as ended from their last moment on in any case."""
    remember_ended_s: float = Field(default=3600.0, ge=0, le=604_800)
    """Time for which the service can say that a lease expired or was released, rather than that it is unknown, in
    seconds."""
    driver: DriverSettings = DriverSettings()
    """How the driver is asked."""
    thresholds: ThresholdSettings = ThresholdSettings()
    """What is worth an event."""
    watch: WatchSettings = WatchSettings()
    """Those who watch the status."""

    @model_validator(mode="after")
    def _default_ttl_in_range(self) -> Self:
        if not self.min_ttl_s <= self.default_ttl_s <= self.max_ttl_s:
            raise ValueError("default_ttl_s: not within min_ttl_s and max_ttl_s")
        return self
