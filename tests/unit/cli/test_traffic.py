"""Requests per second and quantiles from two readings of the gateway's metrics."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from torchless.cli.traffic import Reading, between, quantile, queue_ms, read


class Gateway:
    """The gateway's metrics of requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("torchless_gateway_requests", "", labels, registry=self.registry)
        self.seconds = Histogram(
            "torchless_gateway_request_seconds", "", labels[:2], buckets=(0.01, 0.1, 1.0), registry=self.registry
        )

        self.queue = Histogram("torchless_gateway_queue_seconds", "", buckets=(0.001, 0.01), registry=self.registry)

    def answered(self, route: str, status: str, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            self.requests.labels("POST", route, status).inc()
            self.seconds.labels("POST", route).observe(seconds)

    def reading(self, at: float) -> Reading:
        return read(generate_latest(self.registry).decode(), at)


def test_traffic_counts_only_what_came_between_two_readings() -> None:
    gateway = Gateway()
    gateway.answered("/embed", "200", 0.5, times=100)
    earlier = gateway.reading(10.0)
    gateway.answered("/embed", "200", 0.05, times=8)
    gateway.answered("/embed", "429", 0.05, times=2)
    gateway.answered("/rerank", "504", 0.5, times=20)
    rerank, embed = between(earlier, gateway.reading(12.0))
    assert (rerank.route, rerank.requests_per_s, rerank.failed_per_s) == ("/rerank", 10.0, 10.0)
    assert (embed.route, embed.requests_per_s, embed.failed_per_s) == ("/embed", 5.0, 1.0)
    assert 10 < embed.p50_ms < embed.p95_ms <= 100 < rerank.p50_ms <= 1000


def test_time_in_the_queue_is_that_between_two_readings() -> None:
    gateway = Gateway()
    for _ in range(100):
        gateway.queue.observe(0.005)
    earlier = gateway.reading(10.0)
    assert all(map(math.isnan, queue_ms(earlier, gateway.reading(11.0))))
    for _ in range(10):
        gateway.queue.observe(0.0005)
    p50, p95 = queue_ms(earlier, gateway.reading(12.0))
    assert 0 < p50 < p95 <= 1


def test_a_restarted_gateway_counts_from_zero() -> None:
    old, new = Gateway(), Gateway()
    old.answered("/embed", "200", 0.05, times=50)
    new.answered("/embed", "200", 0.05, times=3)
    (traffic,) = between(old.reading(0.0), new.reading(1.0))
    assert traffic.requests_per_s == 3.0


def test_routes_without_requests_are_left_out() -> None:
    gateway = Gateway()
    gateway.answered("/embed", "200", 0.05)
    assert between(gateway.reading(0.0), gateway.reading(1.0)) == []


@pytest.mark.parametrize(
    ("share", "seconds"), [(0.5, 0.055), (1.0, 0.1), (0.0, 0.01)], ids=["median", "largest", "smallest"]
)
def test_quantiles_are_interpolated_within_a_bucket(share: float, seconds: float) -> None:
    assert quantile({0.01: 0.0, 0.1: 10.0, math.inf: 10.0}, share) == pytest.approx(seconds)


def test_quantile_above_the_last_bound_is_that_bound() -> None:
    assert quantile({0.01: 0.0, 0.1: 1.0, math.inf: 10.0}, 0.95) == 0.1


def test_quantile_of_nothing_is_nan() -> None:
    assert math.isnan(quantile({0.01: 0.0, math.inf: 0.0}, 0.5))
