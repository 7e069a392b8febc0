"""Looks at the driver again and again, on a thread of its own: NVML blocks, for long where a device is failing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from bentos.gpu.driver import DriverUnavailableError, GPUDriver, Reading
from bentos.gpu.inventory import DriverPoll
from bentos.gpu.settings import DriverSettings

logger = logging.getLogger(__name__)


class Monitor:
    """Reads the devices at an interval, and sooner when somebody asks.

    A driver or device that goes is looked for again by ending the session and opening a new one: NVML finds what is
    plugged in only then.

    Args:
        driver: Used on the monitor's thread alone.
        settings: Intervals.
        deliver: Takes each look, on the monitor's thread; when it returns, the look counts.
    """

    def __init__(self, driver: GPUDriver, settings: DriverSettings, deliver: Callable[[DriverPoll], None]) -> None:
        self._driver = driver
        self._settings = settings
        self._deliver = deliver
        self._wake = threading.Condition()
        self._waiting: list[Future[None]] = []
        self._leaving = False
        self._polling_since: float | None = None
        self._polled_at = float("-inf")
        """When the last look that was delivered began; as `_looking_since`, on the monotonic clock."""
        # A daemon, because a driver that hangs must not keep the process from leaving.
        self._thread = threading.Thread(target=self._run, name="gpu-monitor", daemon=True)
        self._session = _Session(driver, settings.reopen_interval_s)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more and ends the session; waits for that, but not for a driver that hangs."""
        with self._wake:
            self._leaving = True
            self._wake.notify()
        self._thread.join(self._settings.timeout_s)

    def poll_duration_s(self) -> float:
        """For how long the look under way has lasted, in seconds; 0 between looks."""
        since = self._polling_since
        return 0.0 if since is None else time.monotonic() - since

    def fresh(self) -> Future[None]:
        """Done as soon as a look has been delivered that is younger than `max_reading_age_s` from now on."""
        done: Future[None] = Future()
        with self._wake:
            if time.monotonic() - self._polled_at <= self._settings.max_reading_age_s:
                done.set_result(None)
            else:
                self._waiting.append(done)
                self._wake.notify()
        return done

    def _run(self) -> None:
        try:
            while not self._leaving:
                self._poll()
                with self._wake:
                    if not self._waiting and not self._leaving:
                        self._wake.wait(self._settings.poll_interval_s)
        finally:
            self._session.close()

    def _poll(self) -> None:
        with self._wake:
            asked, self._waiting = self._waiting, []
        began = time.monotonic()
        self._polling_since = began
        try:
            poll = self._session.poll()
        except Exception:  # a defect of ours must not end the looking
            logger.exception("the devices could not be read")
            poll = DriverPoll(None, "the devices cannot be read; the service's log says why", stalled=True)
        finally:
            self._polling_since = None
        try:
            self._deliver(poll)
        except Exception:
            logger.exception("what was read could not be taken in; trying again with the next reading")
        else:
            self._polled_at = began
        for done in asked:
            if done.set_running_or_notify_cancel():
                done.set_result(None)


class _Session:
    """A session with the driver, opened again while something is missing."""

    def __init__(self, driver: GPUDriver, reopen_interval_s: float) -> None:
        self._driver = driver
        self._reopen_interval_s = reopen_interval_s
        self._is_open = False
        self._tried_at = float("-inf")
        self._reason = ""
        self._expected: set[str] = set()
        """GPUs that were there."""
        self._incomplete = False

    def poll(self) -> DriverPoll:
        """What is there now, or why nothing can be read."""
        due = time.monotonic() - self._tried_at >= self._reopen_interval_s
        if due and self._is_open and self._incomplete:
            self.close()
            if not self._open():
                # Devices that were fine a moment ago need not have gone, so the next look decides, with another try.
                self._tried_at = float("-inf")
                return DriverPoll(None, self._reason, stalled=True)
        elif due and not self._is_open:
            self._open()
        if not self._is_open:
            return DriverPoll(None, self._reason)
        try:
            reading = self._driver.read()
        except DriverUnavailableError as error:
            self._reason = str(error)
            self.close()
            return DriverPoll(None, self._reason)
        self._incomplete = self._is_something_missing(reading)
        return DriverPoll(reading)

    def close(self) -> None:
        """Ends the session, if there is one."""
        if self._is_open:
            self._is_open = False
            self._driver.close()

    def _open(self) -> bool:
        self._tried_at = time.monotonic()
        try:
            self._driver.open()
        except DriverUnavailableError as error:
            self._reason = str(error)
            return False
        self._is_open = True
        return True

    def _is_something_missing(self, reading: Reading) -> bool:
        here = {device.uuid for device in reading.devices if not device.parent_uuid}
        self._expected |= here
        return not here or bool(reading.gone) or here != self._expected
