"""The state of an endpoint as a client sees it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    """State of a circuit breaker."""

    CLOSED = "closed"
    """Calls pass."""
    HALF_OPEN = "half_open"
    """One call at a time passes, as a probe."""
    OPEN = "open"
    """No call passes."""


class Health(StrEnum):
    """Health of an endpoint."""

    UNKNOWN = "unknown"
    """It has not answered a health check yet."""
    SERVING = "serving"
    """It takes calls."""
    NOT_SERVING = "not_serving"
    """It answers, but is starting, shutting down, or cannot serve."""
    UNREACHABLE = "unreachable"
    """It does not answer."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """State of an endpoint at one moment."""

    address: str
    """Its address."""
    health: Health
    """Its health."""
    breaker: BreakerState
    """State of its circuit breaker."""
    trips: int
    """How often the breaker has opened."""
    next_probe_s: float
    """Seconds until the breaker lets a probe through; 0: now, or it is not open."""
    calls_in_flight: int
    """Its calls in flight."""
