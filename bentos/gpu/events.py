"""What happens to devices and leases, as those who watch hear of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What happened; the values are the label of the metric."""

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
    """What a threshold is about; named as its setting."""

    MEMORY_USED_SHARE = "memory_used_share"
    TEMPERATURE_C = "temperature_c"
    ECC_UNCORRECTED = "ecc_uncorrected"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    kind: EventKind
    at: float
    """Seconds since the Unix epoch."""
    message: str
    """In words, for callers and the log."""
    device_uuid: str = ""
    allocation_id: str = ""
    threshold: ThresholdName | None = None
    value: float | None = None
    """What was read, in the threshold's unit."""
    limit: float | None = None
    """The threshold's own value."""
