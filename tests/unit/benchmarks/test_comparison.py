"""The comparison of two checkouts."""

from __future__ import annotations

import pytest

from benchmarks.comparison.__main__ import Figures, Time, clients_up, measure, to_markdown
from benchmarks.comparison.variants import CLIENT_LAYER, EMBEDDING
from benchmarks.paths import ROOT


@pytest.fixture
def windows() -> list[tuple[str, str, int, float]]:
    """The windows that were timed, in order."""
    return []


def timer(name: str, speed: float, windows: list[tuple[str, str, int, float]]) -> Time:
    def time(variant: str, in_flight: int, seconds: float) -> Figures:
        windows.append((name, variant, in_flight, seconds))
        return {"requests/s": speed * len(windows), "p50 ms": 2.0}

    return time


def test_checkouts_alternate_in_reverse_order_every_other_round(windows: list[tuple[str, str, int, float]]) -> None:
    timers = {name: timer(name, 1.0, windows) for name in ("this", "other")}
    found = measure(timers, EMBEDDING, rounds=2, scale=0.5)
    assert [name for name, *_ in windows] == ["other", "this"] * 4 + ["this", "other"] * 4
    assert {seconds for *_, seconds in windows} == {1.0}
    assert set(found) == {(variant, in_flight) for variant in EMBEDDING for in_flight in (1, 32)}
    assert all(len(figures[name]) == 2 for figures in found.values() for name in timers)


def test_the_table_shows_medians_and_ratios_within_a_round() -> None:
    this = [{"requests/s": 10.0}, {"requests/s": 30.0}, {"requests/s": 20.0}]
    other = [{"requests/s": 10.0}, {"requests/s": 10.0}, {"requests/s": 40.0}]
    text = to_markdown("Clients", {("cache, hit", 32): {"this": this, "other": other}})
    assert "| variant | in flight | requests/s | other | ratio |" in text
    assert "| cache, hit | 32 | 20 | 10 | 1.000 (0.50-3.00) |" in text


def test_the_clients_of_a_checkout_are_timed_in_another_process() -> None:
    with clients_up({"this": ROOT}) as timers:
        for variant in CLIENT_LAYER:
            figures = timers["this"](variant, 2, 0.05)
            assert set(figures) == {"requests/s", "p50 ms", "CPU µs per request"}
            assert min(figures.values()) > 0
