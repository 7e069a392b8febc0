"""An adaptive limit on the calls in flight to one capability."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pydantic import Field, model_validator

from torchless.contracts.errors import TOO_LATE, ErrorKind, TorchlessError
from torchless.settings import SettingsGroup

_SMOOTHING = 0.1
_HINT_UNMEASURED_S = 1.0
_SHORTEST_HINT_S = 0.1
_LONGEST_HINT_S = 60.0


class ConcurrencySettings(SettingsGroup):
    """The adaptive limit on calls in flight to one capability from one process; further calls get OVERLOADED."""

    enabled: bool = True
    """Turns the limit on."""
    initial: int = Field(default=128, ge=1)
    """The limit at the start, in calls. Two full batches of the service are a good value; less starves it."""
    min: int = Field(default=8, ge=1)
    """The lowest limit, in calls."""
    max: int = Field(default=384, ge=1)
    """The highest limit, in calls. Two capabilities that are slow at the same time leave a quarter of the gateway's
    `limits.concurrent_requests` to the others."""
    decrease: float = Field(default=0.8, ge=0.1, lt=1)
    """Factor applied to the limit when the service refuses a call with OVERLOADED, once a round trip. Missed deadlines
    lower the limit by half of their share: if all calls miss them, the limit is halved."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if not self.min <= self.initial <= self.max:
            raise ValueError("initial must be from min to max")
        return self


class AdaptiveLimit:
    """Bounds the calls in flight, refuses more without waiting, and adapts the bound to the service.

        with limit.call():
            answer = await client.embed(texts)

    Additive increase, multiplicative decrease on explicit signs of congestion, as in TCP (RFC 5681).
    `docs/decisions/0009-adaptive-concurrency-limit.md` says why it does not use latency. The outcome of a call changes
    the limit as follows:

    - An answer raises it by one (slow start) until the first sign of congestion, and by one a round trip afterwards
      (congestion avoidance). Only calls that found half of the limit in use count, so that an unused limit does not
      grow (RFC 7661): it reaches at most twice the calls in flight.
    - OVERLOADED, a refusal before any work, multiplies it by `decrease`, at most once a round trip. A refusal because
      of the caller's deadline counts only while half of the limit is in use: otherwise a few callers with impossible
      deadlines would take the service from all others. Calls that began before the last decrease do not count
      (RFC 6582). Since a refusal takes no time, the usual time of an answer must also have passed.
    - DEADLINE, which is lost work, is counted over a round trip, and half of the share of missed calls is then taken
      off: if all calls missed, the limit is halved; if one in a hundred did, it loses 0.5 percent (as DCTCP does with
      marks, RFC 8257). It does not count if the deadline was shorter than recent answers took, or while less than half
      of the limit is in use, because fewer calls would not have helped.
    - Any other error, and cancellation, only returns the permit.

    For calls of one request and one answer, in one event loop. A long stream would look like a slow answer.

    Args:
        settings: Initial limit and bounds.
        capability: Name in messages, for instance `embedding`.
        clock: Monotonic time, in seconds.
        on_change: Called with the limit at the start and whenever it changes, in calls.
    """

    def __init__(
        self,
        settings: ConcurrencySettings,
        capability: str,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[int], None] = lambda limit: None,
    ) -> None:
        self._settings = settings
        self._capability = capability
        self._clock = clock
        self._on_change = on_change
        self._limit = float(settings.initial)
        self._slow_start_below = math.inf
        self._decreased_at = -math.inf
        self._service_s: float | None = None
        self._round_began = -math.inf
        self._round_answered = 0
        self._round_missed = 0
        self._refusals_since = -math.inf
        self._recent_refusals = 0
        self.in_flight = 0
        """Calls that hold a permit."""
        self.refused = 0
        """Calls refused so far."""
        on_change(self.value)

    @property
    def value(self) -> int:
        """The limit, in calls; it has no effect while `enabled` is false."""
        return int(self._limit)

    def call(self) -> Permit:
        """A permit for one call, acquired on entering its `with` block.

        Raises:
            TorchlessError: On entering: OVERLOADED with a retry delay, if the limit is reached.
        """
        return Permit(self)

    def reconfigure(self, settings: ConcurrencySettings) -> None:
        """Applies new settings; the current limit stays, within the new bounds."""
        self._settings = settings
        self._become(self._limit)

    def _enter(self) -> float:
        now = self._clock()
        if self._settings.enabled and self.in_flight >= self.value:
            raise self._refusal(now)
        self.in_flight += 1
        return now

    def _leave(self, began: float, in_use: int, error: BaseException | None) -> None:
        """Returns a permit.

        Args:
            began: Time of its acquisition.
            in_use: Calls in flight at that time, with this one.
            error: Error of the call; None: an answer.
        """
        self.in_flight -= 1
        if not self._settings.enabled:
            return
        now = self._clock()
        if error is None:
            self._answered(now - began, in_use)
            self._count(began, now, missed=False)
        elif isinstance(error, TorchlessError):
            self._failed(error, began, now, in_use)

    def _answered(self, seconds: float, in_use: int) -> None:
        before = seconds if self._service_s is None else self._service_s
        self._service_s = before + _SMOOTHING * (seconds - before)
        if self._is_used(in_use):
            slow_start = self._limit < self._slow_start_below
            # As many answers as the limit arrive in one round trip: plus one for each, or plus one for all of them.
            self._become(self._limit + (1 if slow_start else 1 / self._limit))

    def _is_used(self, in_flight: int) -> bool:
        return 2 * in_flight >= self._limit

    def _failed(self, error: TorchlessError, began: float, now: float, in_use: int) -> None:
        kind, usual = error.kind, self._service_s or 0.0
        if error.metadata.get("reason") == TOO_LATE and not self._is_used(in_use):
            return
        if kind is ErrorKind.OVERLOADED and began >= self._decreased_at and now - self._decreased_at >= usual:
            self._decrease(self._settings.decrease, now)
        elif kind is ErrorKind.DEADLINE and now - began >= usual and self._is_used(in_use):
            self._count(began, now, missed=True)

    def _count(self, began: float, now: float, *, missed: bool) -> None:
        """Counts a call that the service worked on; the first call of a round that ends closes the round."""
        if began >= self._round_began:
            self._judge_round(now)
        self._round_missed += missed
        self._round_answered += not missed

    def _judge_round(self, now: float) -> None:
        if self._round_missed:
            share = self._round_missed / (self._round_missed + self._round_answered)
            self._decrease(1 - share / 2, now)
        else:
            self._begin_round(now)

    def _decrease(self, factor: float, now: float) -> None:
        self._become(self._limit * factor)
        self._slow_start_below = self._limit
        self._decreased_at = now
        self._begin_round(now)

    def _begin_round(self, now: float) -> None:
        self._round_began, self._round_answered, self._round_missed = now, 0, 0

    def _become(self, limit: float) -> None:
        before = self.value
        self._limit = min(max(limit, float(self._settings.min)), float(self._settings.max))
        if self.value != before:
            self._on_change(self.value)

    def _refusal(self, now: float) -> TorchlessError:
        """OVERLOADED; the n-th refusal in a round trip gets a delay of n more calls."""
        self.refused += 1
        usual = self._service_s
        if now - self._refusals_since >= (usual or _HINT_UNMEASURED_S):
            self._refusals_since, self._recent_refusals = now, 0
        self._recent_refusals += 1
        hint = _HINT_UNMEASURED_S if usual is None else usual * (1 + self._recent_refusals / self._limit)
        return TorchlessError(
            ErrorKind.OVERLOADED,
            f"the {self._capability} service is at its concurrency limit; retry after the Retry-After delay",
            retry_after_s=min(max(hint, _SHORTEST_HINT_S), _LONGEST_HINT_S),
        )


class Permit:
    """Permit for one call: a context manager for a single use, which reports the outcome to the limit."""

    __slots__ = ("_began", "_in_use", "_limit")

    def __init__(self, limit: AdaptiveLimit) -> None:
        self._limit = limit
        self._began = 0.0
        self._in_use = 0

    def __enter__(self) -> Self:
        self._began = self._limit._enter()
        self._in_use = self._limit.in_flight
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit._leave(self._began, self._in_use, error)
