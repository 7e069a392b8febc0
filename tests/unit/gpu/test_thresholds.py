"""Thresholds: one event when reached, one when left, and no flapping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bentos.gpu.driver import DeviceReading
from bentos.gpu.events import EventKind, ThresholdName
from bentos.gpu.settings import ThresholdSettings
from bentos.gpu.thresholds import Thresholds
from tests.fake_gpu_driver import device

REACHED, LEFT = EventKind.THRESHOLD_REACHED, EventKind.THRESHOLD_LEFT


def with_memory(used_mb: int) -> DeviceReading:
    return device("a", total_mb=1000, used_mb=used_mb)


def with_figure(name: str, value: float | None) -> DeviceReading:
    changes: dict[str, Any] = {name: value}
    return replace(device("a"), **changes)


@pytest.mark.parametrize(
    ("name", "readings", "kinds"),
    [
        (
            ThresholdName.MEMORY_USED_SHARE,
            [with_memory(n) for n in (940, 950, 960, 910, 900, 899, 949, 950)],
            [None, REACHED, None, None, None, LEFT, None, REACHED],
        ),
        (
            ThresholdName.TEMPERATURE_C,
            [with_figure("temperature_c", n) for n in (84, 85, 80, None, 79, 84)],
            [None, REACHED, None, None, LEFT, None],
        ),
        (
            ThresholdName.ECC_UNCORRECTED,
            [with_figure("ecc_uncorrected", n) for n in (0, 1, 5, 0)],
            [None, REACHED, None, LEFT],
        ),
    ],
)
def test_threshold_is_reached_and_left(
    name: ThresholdName, readings: list[DeviceReading], kinds: list[EventKind | None]
) -> None:
    thresholds = Thresholds(ThresholdSettings())
    found = []
    for reading in readings:
        events = thresholds.observe([reading], 1.0)
        found.append(events[0].kind if events else None)
        assert all(event.threshold is name for event in events)
    assert found == kinds


def test_threshold_event_has_value_and_limit() -> None:
    (event,) = Thresholds(ThresholdSettings()).observe([with_figure("temperature_c", 91)], 7.0)
    assert (event.at, event.device_uuid, event.value, event.limit) == (7.0, "a", 91, 85)
    assert "91" in event.message


def test_device_that_returns_hot_reaches_its_threshold_again() -> None:
    thresholds = Thresholds(ThresholdSettings())
    hot = with_figure("temperature_c", 91)
    assert len(thresholds.observe([hot], 1.0)) == 1
    assert thresholds.observe([], 2.0) == []
    assert thresholds.reached == frozenset()
    assert len(thresholds.observe([hot], 3.0)) == 1


def test_disabled_thresholds_raise_no_event() -> None:
    off = ThresholdSettings(memory_used_share=None, temperature_c=None, ecc_uncorrected=None)
    bad = replace(device("a", total_mb=10, used_mb=10), temperature_c=150, ecc_uncorrected=9)
    assert Thresholds(off).observe([bad], 1.0) == []


def test_memory_threshold_ignores_gpus_in_mig_mode() -> None:
    whole = replace(device("a", total_mb=10, used_mb=10), mig_enabled=True)
    assert Thresholds(ThresholdSettings()).observe([whole], 1.0) == []
