"""The circuit breaker of one endpoint: aiobreaker's state machine, fed with what counts.

aiobreaker lets every waiting call through once it is half open, counts calls that began before it opened, and keeps its
time by the wall clock. So each call takes a ticket here, results of tickets from an earlier state are passed over, one
ticket at a time is a probe, and the time is the monotonic clock's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torchless.clients.endpoint_state import BreakerState
from torchless.clients.endpoints.aiobreaker_without_redis import (
    CircuitBreaker,
    CircuitBreakerError,
    CircuitBreakerListener,
    CircuitBreakerState,
)
from torchless.clients.settings import BreakerSettings
from torchless.contracts.errors import ErrorKind, TorchlessError

_ONE_PORTION = 4096
"""Bytes of a request that `deadline_counts_from_s` is for: large ones may take long at a service that is well."""
_MOST_PORTIONS = 20
"""Portions that a request counts as at most: a service refuses in advance what would not be done by its deadline, so
who waits that long in vain has been kept waiting."""
_STATES = {
    CircuitBreakerState.CLOSED: BreakerState.CLOSED,
    CircuitBreakerState.HALF_OPEN: BreakerState.HALF_OPEN,
    CircuitBreakerState.OPEN: BreakerState.OPEN,
}


class _CountedError(Exception):
    """Stands for an error that counts."""


class Ticket:
    """A call's permission; ended once, with what became of the call."""

    def __init__(self, breaker: Breaker, period: int, deadline_s: float) -> None:
        self._breaker = breaker
        self.period = period
        self._deadline_s = deadline_s

    def answered(self) -> None:
        """The endpoint answered; an error that says nothing against it is an answer, too."""
        self._breaker.end(self, failed=False)

    def failed(self, error: TorchlessError) -> None:
        """The call ended with `error`."""
        self._breaker.end(self, failed=self._breaker.verdict(error, self._deadline_s))

    def abandoned(self) -> None:
        """Nobody waited for the end of the call, so nothing is known."""
        self._breaker.end(self, failed=None)


class Breaker(CircuitBreakerListener):  # type: ignore[misc]  # aiobreaker has no types
    """Opens after failures in a row, and lets one probe through at a time once its pause is over.

    Args:
        settings: Numbers and times.
        on_change: Called after each change of state.
    """

    def __init__(self, settings: BreakerSettings, on_change: Callable[[BreakerState], None] = lambda state: None):
        self._machine = CircuitBreaker(listeners=[self])
        self._on_change = on_change
        self.state = BreakerState.CLOSED
        """What it does with calls."""
        self._period = 0
        self._opened_at = 0.0
        self._probe: Ticket | None = None
        self.trips = 0
        """How often it has opened."""
        self.reconfigure(settings)

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Other numbers and times from now on."""
        self._settings = settings
        self._machine.fail_max = settings.failures
        self._machine.timeout_duration = timedelta(seconds=settings.open_s)

    @property
    def next_probe_s(self) -> float:
        """Seconds until a probe may pass; 0: now, or none is needed."""
        if self.state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._opened_at + self._settings.open_s - time.monotonic())

    @property
    def admits(self) -> bool:
        """Whether `begin` would let a call through."""
        if self.state is BreakerState.CLOSED:
            return True
        return self._probe is None and self.next_probe_s == 0

    def end_pause(self) -> None:
        """The endpoint says that it is back: an open breaker lets a probe through now."""
        if self.state is BreakerState.OPEN:
            self._opened_at = -math.inf

    def begin(self, deadline_s: float, size: int = 0) -> Ticket | None:
        """Permission for one call that waits `deadline_s` seconds, with a request of `size` bytes; None: not now."""
        if not self.admits:
            return None
        if self.state is BreakerState.OPEN:
            self._machine.half_open()
        ticket = Ticket(self, self._period, deadline_s / min(1 + size // _ONE_PORTION, _MOST_PORTIONS))
        if self.state is BreakerState.HALF_OPEN:
            self._probe = ticket
        return ticket

    def verdict(self, error: TorchlessError, deadline_s: float) -> bool | None:
        """Whether `error` of a call that waited `deadline_s` seconds speaks against the endpoint; None: neither way."""
        if error.kind is ErrorKind.DEADLINE:
            # A short one that was missed is no answer either: it must not pass a probe, nor make failures forgotten.
            return True if deadline_s >= self._settings.deadline_counts_from_s else None
        return error.kind is ErrorKind.UNREACHABLE

    def end(self, ticket: Ticket, *, failed: bool | None) -> None:
        """Takes the result of a call; None: there is none."""
        if self._probe is ticket:
            self._probe = None
        if failed is None or ticket.period != self._period:
            return
        try:
            self._machine.call(_result, failed)
        except (_CountedError, CircuitBreakerError) as error:
            _let_go(error)

    def state_change(self, breaker: Any, old: Any, new: Any) -> None:
        """Hears of aiobreaker's changes, before `current_state` has them."""
        self.state = _STATES[new.state]
        self._period += 1
        self._probe = None
        if self.state is BreakerState.OPEN:
            self._opened_at = time.monotonic()
            self.trips += 1
        self._on_change(self.state)


def _let_go(error: BaseException | None) -> None:
    """Undoes the circles of `error`: aiobreaker's frames hold it, and it the call's own error, which is handled now."""
    while isinstance(error, _CountedError | CircuitBreakerError):
        following = error.__cause__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = following


def _result(failed: bool) -> None:
    if failed:
        raise _CountedError
