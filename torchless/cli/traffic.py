"""Requests per second and latency of the gateway, from the difference of two readings of its metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_REQUESTS = "torchless_gateway_requests_total"
_SECONDS = "torchless_gateway_request_seconds_bucket"
_QUEUE_SECONDS = "torchless_gateway_queue_seconds_bucket"
_IN_FLIGHT = "torchless_gateway_requests_in_flight"
_REFUSED = "429"
"""The status of refused requests; other 4xx are the caller's fault."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The metrics at one moment."""

    at: float
    """When they were read, in seconds of a monotonic clock."""
    requests: Mapping[tuple[str, str], float]
    """Requests answered, by route and status."""
    buckets: Mapping[str, Mapping[float, float]]
    """For each route, the number of requests by the upper bound of their time in seconds, cumulative."""
    queue: Mapping[float, float]
    """Requests by the upper bound of their time in the queue of a service, in seconds, cumulative."""
    in_flight: float
    """Requests in progress."""


@dataclass(frozen=True, slots=True)
class RouteTraffic:
    """One route between two readings."""

    route: str
    requests_per_s: float
    failed_per_s: float
    """Requests per second that got 429 or 5xx."""
    p50_ms: float
    """Median time, in milliseconds, interpolated in its bucket; NaN without requests."""
    p95_ms: float
    """95th percentile."""


def read(text: str, at: float) -> Reading:
    """A reading of the gateway's metrics.

    Args:
        text: The metrics in Prometheus' text format.
        at: Now, in seconds of a monotonic clock.
    """
    requests: dict[tuple[str, str], float] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    queue: dict[float, float] = defaultdict(float)
    in_flight = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == _REQUESTS:
                requests[labels["route"], labels["status"]] += sample.value
            elif sample.name == _SECONDS:
                buckets[labels["route"]][float(labels["le"])] += sample.value
            elif sample.name == _QUEUE_SECONDS:
                queue[float(labels["le"])] += sample.value
            elif sample.name == _IN_FLIGHT:
                in_flight += sample.value
    return Reading(at, requests, buckets, queue, in_flight)


def between(earlier: Reading, later: Reading) -> list[RouteTraffic]:
    """The routes with requests between two readings, the busiest first."""
    seconds = max(later.at - earlier.at, 1e-9)
    counts: dict[str, float] = defaultdict(float)
    failed: dict[str, float] = defaultdict(float)
    for (route, status), number in later.requests.items():
        grown = _grown(number, earlier.requests.get((route, status), 0.0))
        counts[route] += grown
        if status == _REFUSED or status.startswith("5"):
            failed[route] += grown
    found = [
        _traffic(route, count / seconds, failed[route] / seconds, earlier, later)
        for route, count in counts.items()
        if count
    ]
    return sorted(found, key=lambda each: -each.requests_per_s)


def _traffic(route: str, requests_per_s: float, failed_per_s: float, earlier: Reading, later: Reading) -> RouteTraffic:
    p50_ms, p95_ms = _quantiles_ms(earlier.buckets.get(route, {}), later.buckets.get(route, {}))
    return RouteTraffic(route, requests_per_s, failed_per_s, p50_ms, p95_ms)


def queue_ms(earlier: Reading, later: Reading) -> tuple[float, float]:
    """Median and 95th percentile of the time in the queue of a service between two readings, in milliseconds.

    NaN if nothing was computed: all came from the cache, or failed.
    """
    return _quantiles_ms(earlier.queue, later.queue)


def _quantiles_ms(before: Mapping[float, float], now: Mapping[float, float]) -> tuple[float, float]:
    grown = {bound: _grown(count, before.get(bound, 0.0)) for bound, count in sorted(now.items())}
    return 1000 * quantile(grown, 0.5), 1000 * quantile(grown, 0.95)


def _grown(now: float, before: float) -> float:
    """By how much a counter has grown; after a restart of the gateway it begins at 0 again."""
    return now - before if now >= before else now


def quantile(buckets: Mapping[float, float], share: float) -> float:
    """A quantile of a histogram, interpolated within its bucket as Prometheus' `histogram_quantile` does.

    Args:
        buckets: Cumulative counts by upper bound, in ascending order, the last bound infinite.
        share: From 0 to 1.
    """
    total = max(buckets.values(), default=0.0)
    if not total:
        return math.nan
    lower, count_below = 0.0, 0.0
    for bound, count in buckets.items():
        if count >= share * total and count > count_below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (share * total - count_below) / (count - count_below)
        lower, count_below = bound, count
    return lower
