"""Settings of the GPU bento."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from bentos.serving.settings import ServingSettings
from torchless.settings import SettingsGroup


class DriverSettings(SettingsGroup):
    """Polling of the driver."""

    poll_interval_s: float = Field(default=1.0, ge=0.02, le=3600)
    """Time between polls of all devices, in seconds."""
    max_reading_age_s: float = Field(default=0.2, ge=0, le=60)
    """Oldest reading from which a lease is made, in seconds; otherwise the devices are read again first."""
    reopen_interval_s: float = Field(default=10.0, ge=0.02, le=3600)
    """Time between attempts to reopen the driver while it or a known device is missing, in seconds."""
    timeout_s: float = Field(default=10.0, gt=0, le=600)
    """Time for one poll, in seconds. After it, the driver counts as not responding; leases stay in force."""


class ThresholdSettings(SettingsGroup):
    """Thresholds that raise an event. Each is left a margin below its value, so that it does not flap."""

    memory_used_share: float | None = Field(default=0.95, gt=0, le=1)
    """Share of a device's memory in use, 0 to 1; none: disabled."""
    memory_margin: float = Field(default=0.05, ge=0, lt=1)
    """How far the share must fall below the threshold to leave it, 0 to 1."""
    temperature_c: float | None = Field(default=85.0, ge=0, le=200)
    """Temperature of a device, in degrees Celsius; none: disabled."""
    temperature_margin_c: float = Field(default=5.0, ge=0, le=100)
    """How far the temperature must fall below the threshold to leave it, in degrees Celsius."""
    ecc_uncorrected: int | None = Field(default=1, ge=1)
    """Uncorrected memory errors of a device since its driver was loaded; none: disabled."""


class WatchSettings(SettingsGroup):
    """Watchers of the status."""

    interval_s: float = Field(default=10.0, gt=0, le=86_400)
    """Time after which the status is sent again, unless the caller sets an interval, in seconds."""
    min_interval_s: float = Field(default=0.5, gt=0, le=3600)
    """Shortest interval that a caller may set, in seconds."""
    max_interval_s: float = Field(default=3600.0, gt=0, le=86_400)
    """Longest interval that a caller may set, in seconds."""
    max_watchers: int = Field(default=64, ge=1, le=10_000)
    """Most watchers at once."""
    max_events: int = Field(default=256, ge=1, le=100_000)
    """Most events kept for a slow watcher; older events are left out and counted."""

    @model_validator(mode="after")
    def _interval_in_range(self) -> Self:
        if not self.min_interval_s <= self.interval_s <= self.max_interval_s:
            raise ValueError("interval_s: must be between min_interval_s and max_interval_s")
        return self


class GPUSettings(ServingSettings):
    """The GPU bento."""

    env_prefix = "TORCHLESS_GPU_"

    metrics_port: int = Field(default=9103, ge=0, le=65_535)
    """Port of the metrics; 0: no metrics are served."""
    store: str = Field(default=".torchless/gpu-leases.sqlite3", min_length=1)
    """File of the leases (SQLite), on persistent storage. Only one process can hold it."""
    reserve_mb: int = Field(default=512, ge=0)
    """Memory of each device or MIG instance that is never leased, in MiB: for CUDA itself."""
    min_ttl_s: float = Field(default=5.0, gt=0)
    """Shortest time to live of a lease, in seconds."""
    default_ttl_s: float = Field(default=300.0, gt=0)
    """Time to live of a lease, unless the caller sets one, in seconds."""
    max_ttl_s: float = Field(default=86_400.0, gt=0, le=31_536_000)
    """Longest time to live of a lease, in seconds."""
    max_allocations: int = Field(default=1024, ge=1, le=10_000)
    """Most leases at once."""
    max_waiting_calls: int = Field(default=1024, ge=1, le=100_000)
    """Most calls that may wait for the lease registry; a call above the limit is refused with OVERLOADED."""
    sweep_interval_s: float = Field(default=0.5, ge=0.02, le=60)
    """Time between sweeps of expired leases, in seconds. A lease ends at its expiry even before the sweep."""
    remember_ended_s: float = Field(default=3600.0, ge=0, le=604_800)
    """Time for which an ended lease is reported as expired or released instead of unknown, in seconds."""
    driver: DriverSettings = DriverSettings()
    """Polling of the driver."""
    thresholds: ThresholdSettings = ThresholdSettings()
    """Thresholds that raise an event."""
    watch: WatchSettings = WatchSettings()
    """Watchers of the status."""

    @model_validator(mode="after")
    def _default_ttl_in_range(self) -> Self:
        if not self.min_ttl_s <= self.default_ttl_s <= self.max_ttl_s:
            raise ValueError("default_ttl_s: must be between min_ttl_s and max_ttl_s")
        return self
