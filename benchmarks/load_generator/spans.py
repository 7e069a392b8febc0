"""The result of a window: a span of time per request, and throughput and latency computed from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[float, float]
"""When a request was sent and answered, in seconds after the window opened; negative: before."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Throughput and latency of one window."""

    per_second: float
    """Requests per second."""
    p50_ms: float
    """Median latency in milliseconds."""
    p95_ms: float
    """95th percentile in milliseconds."""
    p99_ms: float
    """99th percentile in milliseconds."""
    requests: int
    """Requests at least partly inside the window; the percentiles are of these."""


def numbers(spans: Sequence[Span], seconds: float) -> Numbers:
    """Throughput and latency over a window of `seconds`.

    A request partly inside the window counts in part. If only whole responses counted, the throughput of a batching
    server would jump by a whole batch, depending on when the window closes.

    Raises:
        ValueError: No request was in flight inside the window.
    """
    inside = [(sent, done) for sent, done in spans if sent < seconds and done > 0]
    if not inside:
        raise ValueError("no request was in flight inside the window")
    latencies = sorted(1000 * (done - sent) for sent, done in inside)
    parts = sum((min(done, seconds) - max(sent, 0.0)) / (done - sent) for sent, done in inside)
    p50, p95, p99 = (percentile(latencies, share) for share in (0.50, 0.95, 0.99))
    return Numbers(parts / seconds, p50, p95, p99, len(latencies))


def percentile(ascending: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `share` of the values do not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
