"""Polls the driver on a separate thread, because NVML blocks, and for a long time when a device is failing."""

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
    """Reads the devices at an interval, and on request.

    After a driver or device is lost, the monitor opens a new session from time to time, because NVML finds devices only
    when a session starts.

    Args:
        driver: Used on the monitor's thread only.
        settings: Intervals.
        deliver: Receives each poll, on the monitor's thread.
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
        """When the last delivered poll began; like `_polling_since`, on the monotonic clock."""
        # A daemon, because a hanging driver must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name="gpu-monitor", daemon=True)
        self._session = _Session(driver, settings.reopen_interval_s)

    def start(self) -> None:
        """Starts polling."""
        self._thread.start()

    def stop(self) -> None:
        """Stops polling and ends the session; waits for that, but not for a hanging driver."""
        with self._wake:
            self._leaving = True
            self._wake.notify()
        self._thread.join(self._settings.timeout_s)

    def poll_duration_s(self) -> float:
        """Duration of the current poll so far, in seconds; 0 between polls."""
        since = self._polling_since
        return 0.0 if since is None else time.monotonic() - since

    def fresh(self) -> Future[None]:
        """Completes when a poll has been delivered that is at most `max_reading_age_s` old now."""
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
            requested, self._waiting = self._waiting, []
        began = time.monotonic()
        self._polling_since = began
        try:
            poll = self._session.poll()
        except Exception:  # a defect of ours must not end the polling
            logger.exception("the devices could not be read")
            poll = DriverPoll(None, "the devices cannot be read; see the service's log", stalled=True)
        finally:
            self._polling_since = None
        try:
            self._deliver(poll)
        except Exception:
            logger.exception("a reading could not be processed; will retry with the next one")
        else:
            self._polled_at = began
        for done in requested:
            if done.set_running_or_notify_cancel():
                done.set_result(None)


class _Session:
    """A session with the driver, reopened while a device is missing."""

    def __init__(self, driver: GPUDriver, reopen_interval_s: float) -> None:
        self._driver = driver
        self._reopen_interval_s = reopen_interval_s
        self._is_open = False
        self._tried_at = float("-inf")
        self._reason = ""
        self._expected: set[str] = set()
        """GPUs that were seen before."""
        self._incomplete = False

    def poll(self) -> DriverPoll:
        """A reading of the devices, or why there is none."""
        due = time.monotonic() - self._tried_at >= self._reopen_interval_s
        if due and self._is_open and self._incomplete:
            self.close()
            if not self._open():
                # Devices that worked a moment ago may still be there, so the next poll tries again and decides.
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
