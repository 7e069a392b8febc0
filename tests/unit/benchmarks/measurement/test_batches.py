"""Batch sizes out of Prometheus metrics."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from benchmarks.measurement.batches import parse_batches, total


@pytest.fixture
def histogram() -> tuple[CollectorRegistry, Histogram]:
    registry = CollectorRegistry()
    labels, buckets = ["service", "model"], (1, 2, 4, 8)
    return registry, Histogram("torchless_batch_items", "Items.", labels, buckets=buckets, registry=registry)


def test_the_difference_of_two_readings_is_the_batches_in_between(
    histogram: tuple[CollectorRegistry, Histogram],
) -> None:
    registry, items = histogram
    items.labels("embedding", "a").observe(1)
    before = parse_batches(generate_latest(registry).decode())
    for size in (1, 3, 4, 20):
        items.labels("embedding", "a").observe(size)
    batches = parse_batches(generate_latest(registry).decode()) - before
    assert batches.mean == 7
    assert batches.shares() == {"1": 0.25, "3-4": 0.5, "over 8": 0.25}


def test_batches_of_all_models_are_added(histogram: tuple[CollectorRegistry, Histogram]) -> None:
    registry, items = histogram
    items.labels("embedding", "a").observe(2)
    items.labels("embedding", "b").observe(6)
    batches = parse_batches(generate_latest(registry).decode())
    assert batches.mean == 4
    assert total([batches, batches]).shares() == {"2": 0.5, "5-8": 0.5}


def test_a_service_without_batches_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no batch"):
        _ = parse_batches("").mean


def test_the_first_reading_may_precede_the_first_batch(histogram: tuple[CollectorRegistry, Histogram]) -> None:
    registry, items = histogram
    before = parse_batches(generate_latest(registry).decode())
    items.labels("embedding", "a").observe(8)
    assert (parse_batches(generate_latest(registry).decode()) - before).shares() == {"5-8": 1.0}
