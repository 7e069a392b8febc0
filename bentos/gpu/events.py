"""Events of devices and leases, sent to watchers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What happened; the values are labels of the metric."""

    DRIVER_LOST = "driver_lost"
    DRIVER_BACK = "driver_back"
    DEVICE_ADDED = "device_added"
    DEVICE_LOST = "device_lost"
    DEVICE_UNHEALTHY = "device_unhealthy"
    DEVICE_HEALTHY = "device_healthy"
    ALLOCATED = "allocated"
    RENEWED = "renewed"
    RELEASED = "released"
    EXPIRED = "expired"
    ALLOCATION_LOST = "allocation_lost"
    THRESHOLD_REACHED = "threshold_reached"
    THRESHOLD_LEFT = "threshold_left"


class ThresholdName(StrEnum):
    """What a threshold measures; named like its setting."""

    MEMORY_USED_SHARE = "memory_used_share"
    TEMPERATURE_C = "temperature_c"
    ECC_UNCORRECTED = "ecc_uncorrected"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a device or a lease."""

    kind: EventKind
    at: float
    """Seconds since the Unix epoch."""
    message: str
    """For callers and the log."""
    device_uuid: str = ""
    allocation_id: str = ""
    threshold: ThresholdName | None = None
    value: float | None = None
    """The reading, in the threshold's unit."""
    limit: float | None = None
    """The value of the threshold."""
