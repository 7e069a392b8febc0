"""The circuit breaker of one endpoint: aiobreaker's state machine, fed with the results that count.

A half-open breaker of aiobreaker lets every waiting call through, counts calls that began before it opened, and uses
the wall clock. So each call takes a ticket here: results of tickets from an earlier state are ignored, only one ticket
at a time is a half-open probe, and time is monotonic.
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

_UNIT_BYTES = 4096
"""Request size that `deadline_counts_from_s` is for; larger requests may take longer at a healthy service."""
_MAX_UNITS = 20
"""Most units that a request counts as. A service refuses at once what it cannot do in time, so even a large request
that waits so long in vain is a failure."""
_STATES = {
    CircuitBreakerState.CLOSED: BreakerState.CLOSED,
    CircuitBreakerState.HALF_OPEN: BreakerState.HALF_OPEN,
    CircuitBreakerState.OPEN: BreakerState.OPEN,
}


class _CountedError(Exception):
    """Stands for an error that counts as a failure."""


class Ticket:
    """Permission for one call; ended once, with the result of the call."""

    __slots__ = ("_breaker", "_deadline_s", "period")

    def __init__(self, breaker: Breaker, period: int, deadline_s: float) -> None:
        self._breaker = breaker
        self.period = period
        self._deadline_s = deadline_s

    def answered(self) -> None:
        """The endpoint answered; an error that is not its fault is an answer as well."""
        self._breaker.end(self, failed=False)

    def failed(self, error: TorchlessError) -> None:
        """The call failed with `error`."""
        self._breaker.end(self, failed=self._breaker.verdict(error, self._deadline_s))

    def discard(self) -> None:
        """The caller did not wait for the end of the call, so there is no result."""
        self._breaker.end(self, failed=None)


class Breaker(CircuitBreakerListener):  # type: ignore[misc]  # aiobreaker has no types
    """Opens after failures in a row. Once its pause is over, it lets one probe through at a time.

    Args:
        settings: Thresholds and times.
        on_change: Called after each change of state.
        clock: Monotonic time, in seconds.
    """

    def __init__(
        self,
        settings: BreakerSettings,
        on_change: Callable[[BreakerState], None] = lambda state: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = CircuitBreaker(listeners=[self])
        self._on_change = on_change
        self._clock = clock
        self.state = BreakerState.CLOSED
        """Its state."""
        self._period = 0
        self._opened_at = 0.0
        self._probe: Ticket | None = None
        self.trips = 0
        """How often it has opened."""
        self.reconfigure(settings)

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Applies other settings from now on."""
        self._settings = settings
        self._machine.fail_max = settings.failures
        self._machine.timeout_duration = timedelta(seconds=settings.open_s)

    @property
    def next_probe_s(self) -> float:
        """Seconds until it lets a probe through; 0: now, or it is not open."""
        if self.state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._opened_at + self._settings.open_s - self._clock())

    @property
    def admits(self) -> bool:
        """Whether `begin` would let a call through."""
        if self.state is BreakerState.CLOSED:
            return True
        return self._probe is None and self.next_probe_s == 0

    def allow_probe(self) -> None:
        """Lets a probe through now if it is open, because the endpoint answers health checks again."""
        if self.state is BreakerState.OPEN:
            self._opened_at = -math.inf

    def begin(self, deadline_s: float, size: int = 0) -> Ticket | None:
        """Permission for one call that waits `deadline_s` seconds, with a request of `size` bytes; None: not now."""
        if not self.admits:
            return None
        if self.state is BreakerState.OPEN:
            self._machine.half_open()
        ticket = Ticket(self, self._period, deadline_s / min(1 + size // _UNIT_BYTES, _MAX_UNITS))
        if self.state is BreakerState.HALF_OPEN:
            self._probe = ticket
        return ticket

    def verdict(self, error: TorchlessError, deadline_s: float) -> bool | None:
        """Whether `error` of a call that waited `deadline_s` seconds is a failure; None: it says nothing."""
        if error.kind is ErrorKind.DEADLINE and deadline_s < self._settings.deadline_counts_from_s:
            # No answer either: it must neither close a half-open breaker nor reset the count of failures.
            return None
        return error.kind.policy.counts_for_breaker

    def end(self, ticket: Ticket, *, failed: bool | None) -> None:
        """Takes the result of a call; None: there is none."""
        if self._probe is ticket:
            self._probe = None
        if failed is None or ticket.period != self._period:
            return
        try:
            self._machine.call(_result, failed)
        except (_CountedError, CircuitBreakerError) as error:
            _break_cycles(error)

    def state_change(self, breaker: Any, old: Any, new: Any) -> None:
        """Called by aiobreaker on a change, before `current_state` has the new state."""
        self.state = _STATES[new.state]
        self._period += 1
        self._probe = None
        if self.state is BreakerState.OPEN:
            self._opened_at = self._clock()
            self.trips += 1
        self._on_change(self.state)


def _break_cycles(error: BaseException | None) -> None:
    """Frees `error`: aiobreaker's frames refer to it, and it refers to the call's own error, which is handled now."""
    while isinstance(error, _CountedError | CircuitBreakerError):
        following = error.__cause__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = following


def _result(failed: bool) -> None:
    if failed:
        raise _CountedError
