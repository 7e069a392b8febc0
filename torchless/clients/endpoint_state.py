"""What a client knows of an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    """What the breaker does with calls."""

    CLOSED = "closed"
    """It lets them through."""
    HALF_OPEN = "half_open"
    """It lets one through at a time, as a probe."""
    OPEN = "open"
    """It lets none through."""


class Health(StrEnum):
    """What is known of an endpoint."""

    UNKNOWN = "unknown"
    """Nothing yet."""
    SERVING = "serving"
    """It takes calls."""
    NOT_SERVING = "not_serving"
    """It answers, but is loading, leaving, or out of order."""
    UNREACHABLE = "unreachable"
    """It does not answer."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What is known of an endpoint at one moment."""

    address: str
    """Where it is."""
    health: Health
    """What it says of itself."""
    breaker: BreakerState
    """What its breaker does with calls."""
    trips: int
    """How often the breaker has opened."""
    next_probe_s: float
    """Seconds until the breaker lets a probe through; 0: now, or none is needed."""
    calls_in_flight: int
    """Calls that it has now."""
