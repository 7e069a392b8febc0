"""Throughput and latency of a window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load_generator.spans import numbers, percentile


def test_requests_inside_the_window_count_fully() -> None:
    spans = [(0.1 * i, 0.1 * i + 0.1) for i in range(20)]
    found = numbers(spans, 2.0)
    assert found.per_second == pytest.approx(10)
    assert found.p50_ms == pytest.approx(100)
    assert found.p99_ms == pytest.approx(100)


def test_requests_across_the_edges_of_the_window_count_in_part() -> None:
    found = numbers([(-0.5, 0.5), (0.5, 1.5), (1.5, 2.5)], 2.0)
    assert found.per_second == pytest.approx(1.0)
    assert found.requests == 3


def test_percentiles_leave_out_the_warm_up_and_include_slow_requests() -> None:
    found = numbers([(-3.0, -1.0), (0.0, 0.2), (0.2, 9.2)], 1.0)
    assert found.requests == 2
    assert found.p50_ms == pytest.approx(200)
    assert found.p99_ms == pytest.approx(9000)


def test_a_request_longer_than_the_window_still_counts() -> None:
    assert numbers([(-1.0, 5.0)], 2.0).per_second == pytest.approx(1 / 6)


def test_a_window_without_load_is_refused() -> None:
    with pytest.raises(ValueError, match="no request"):
        numbers([(-2.0, -1.0)], 2.0)


@given(in_flight=st.integers(1, 64), latency=st.floats(0.01, 0.5), offset=st.floats(0, 1))
def test_throughput_is_requests_in_flight_divided_by_latency(in_flight: int, latency: float, offset: float) -> None:
    first = -latency - offset * latency
    rounds = int(3 / latency) + 4
    spans = [(first + k * latency, first + (k + 1) * latency) for k in range(rounds) for _ in range(in_flight)]
    assert numbers(spans, 2.0).per_second == pytest.approx(in_flight / latency, rel=1e-6)


def test_percentiles_are_measured_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.01) == 7
