"""The monitor with a driver that disappears, returns, refuses and fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bentos.gpu.inventory import DriverPoll
from bentos.gpu.monitor import Monitor
from bentos.gpu.settings import DriverSettings
from tests.fake_gpu_driver import FakeGPUDriver, device
from tests.waiting import wait_until

PATIENCE_S = 20
OFTEN = DriverSettings(poll_interval_s=0.02, reopen_interval_s=0.02)
SELDOM = DriverSettings(poll_interval_s=3600, reopen_interval_s=0.02, max_reading_age_s=0)


@contextmanager
def monitoring(driver: FakeGPUDriver, settings: DriverSettings) -> Iterator[tuple[Monitor, list[DriverPoll]]]:
    polls: list[DriverPoll] = []
    monitor = Monitor(driver, settings, polls.append)
    monitor.start()
    try:
        yield monitor, polls
    finally:
        monitor.stop()


def uuids(poll: DriverPoll) -> list[str]:
    return [each.uuid for each in poll.reading.devices] if poll.reading else []


def test_driver_that_fails_to_reopen_once_loses_no_device() -> None:
    driver = FakeGPUDriver([device("a"), device("b")])
    with monitoring(driver, OFTEN) as (_, polls):
        wait_until(lambda: bool(polls) and uuids(polls[-1]) == ["a", "b"])
        driver.refusals = 1
        gone = driver.devices.pop()
        wait_until(lambda: driver.refusals == 0 and uuids(polls[-1]) == ["a"])
        driver.devices.append(gone)
        wait_until(lambda: uuids(polls[-1]) == ["a", "b"])
    assert [poll.stalled for poll in polls if poll.reading is None] == [True]


def test_driver_that_keeps_failing_to_open_is_lost() -> None:
    driver = FakeGPUDriver([device("a"), device("b")])
    with monitoring(driver, OFTEN) as (_, polls):
        wait_until(lambda: bool(polls) and uuids(polls[-1]) == ["a", "b"])
        driver.refusals = 3
        driver.devices.pop()
        wait_until(lambda: any(poll.reading is None and not poll.stalled for poll in polls))
        wait_until(lambda: uuids(polls[-1]) == ["a"])


def test_unexpected_read_error_loses_no_device_and_polling_continues() -> None:
    driver = FakeGPUDriver([device("a")])
    with monitoring(driver, OFTEN) as (_, polls):
        driver.broken = True
        wait_until(lambda: bool(polls) and polls[-1].reading is None)
        assert polls[-1].stalled
        driver.broken = False
        wait_until(lambda: uuids(polls[-1]) == ["a"])


def test_concurrent_requests_share_a_poll() -> None:
    driver = FakeGPUDriver([device("a")])
    with monitoring(driver, SELDOM) as (monitor, polls):
        wait_until(lambda: len(polls) == 1)
        driver.hold = threading.Event()
        first = monitor.fresh()
        wait_until(lambda: monitor.poll_duration_s() > 0)
        others = [monitor.fresh() for _ in range(50)]
        driver.hold.set()
        for each in (first, *others):
            each.result(PATIENCE_S)
    assert len(polls) == 3


def test_recent_reading_needs_no_new_poll() -> None:
    with monitoring(FakeGPUDriver([device("a")]), DriverSettings(poll_interval_s=3600, max_reading_age_s=60)) as (
        monitor,
        polls,
    ):
        monitor.fresh().result(PATIENCE_S)
        assert monitor.fresh().done()
    assert len(polls) == 1


def test_hanging_driver_does_not_block_the_exit() -> None:
    driver = FakeGPUDriver([device("a")], hold=threading.Event())
    with monitoring(driver, DriverSettings(timeout_s=0.05)) as (monitor, polls):
        wait_until(lambda: monitor.poll_duration_s() > 0)
    assert polls == []
    assert driver.hold is not None
    driver.hold.set()
