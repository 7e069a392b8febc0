"""Where the time of a call went inside the service."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Times inside the service, in milliseconds; 0 where nothing was measured."""

    queue_ms: float = 0.0
    """Waiting for the device."""
    tokenization_ms: float = 0.0
    """Tokenizing the inputs."""
    inference_ms: float = 0.0
    """Computing on the device."""
    total_ms: float = 0.0
    """From the arrival of the request to its response."""


NO_TIMINGS = Timings()
"""Nothing was measured."""
