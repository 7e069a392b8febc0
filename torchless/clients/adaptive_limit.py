"""A limit on calls in flight to one capability, which finds its own size."""

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
    """How many calls to one capability one process has in flight; past that they are refused with OVERLOADED."""

    enabled: bool = True
    """Whether there is a limit at all."""
    initial: int = Field(default=128, ge=1)
    """The limit at start, in calls. Two full batches of the service are a good one: less starves it."""
    min: int = Field(default=8, ge=1)
    """The limit is never less, in calls."""
    max: int = Field(default=384, ge=1)
    """The limit is never more, in calls. Of the gateway's `limits.concurrent_requests` two capabilities that
    are slow at the same time leave a quarter to the others."""
    decrease: float = Field(default=0.8, ge=0.1, lt=1)
    """What the limit is multiplied with when the service refuses a call with OVERLOADED, once a round trip. Where it
    leaves calls unanswered until their deadline, the limit loses half of their share: all of them halve it."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min <= self.initial <= self.max:
            raise ValueError("initial lies between min and max")
        return self


class AdaptiveLimit:
    """Lets so many calls be in flight at once, refuses more without waiting, and learns how many are right.

        with limit.call():
            answer = await client.embed(texts)

    Additive increase, multiplicative decrease on explicit signs of congestion, as TCP does it (RFC 5681); why not by
    latency stands in `docs/decisions/0009-adaptive-concurrency-limit.md`. What a call ends with is what is learned:

    - An answer raises the limit by one (slow start) until the first sign of congestion, and by one a round trip
      afterwards (congestion avoidance). Only calls that found half of the limit in use count, so that a limit that is
      not used does not grow (RFC 7661): it gets to twice what was in flight, and no further.
    - OVERLOADED, by which the service refuses before it has done anything, multiplies it with `decrease`; at once, and
      once a round trip. One that is about the caller's own deadline counts only while half of the limit is used: else a
      few who want the impossible would take the service from everybody. Calls begun before the last decrease say
      nothing about the limit that it made (RFC 6582), and since a refusal takes no time, an answer's time has to pass
      as well.
    - DEADLINE, which is work lost, is counted over a round trip, at whose end half of the share of calls that met it is
      taken off: where all did, the limit is halved; where one in a hundred did, because a caller wants the impossible,
      it loses 0.5 percent (as DCTCP does with marks, RFC 8257). It is not counted where the deadline was shorter than
      answers take lately, nor while less than half of the limit is used: fewer calls would not have helped.
    - Every other error, and cancelling, gives the permit back, and nothing is learned.

    For calls of one request and one answer, in one event loop. A long stream would be taken for a slow answer.

    Args:
        settings: Where it starts, and its bounds.
        capability: Its name in messages, for instance `embedding`.
        clock: Monotonic time, in seconds.
    """

    def __init__(
        self, settings: ConcurrencySettings, capability: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._capability = capability
        self._clock = clock
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

    @property
    def value(self) -> int:
        """The limit, in calls; it does not bind while `enabled` is false."""
        return int(self._limit)

    def call(self) -> Permit:
        """A permit for one call, taken as its `with` block is entered.

        Raises:
            TorchlessError: On entering: OVERLOADED with a hint, when as many calls as the limit allows are in flight.
        """
        return Permit(self)

    def reconfigure(self, settings: ConcurrencySettings) -> None:
        """Takes other settings; what is learned stays, within the new bounds."""
        self._settings = settings
        self._become(self._limit)

    def _enter(self) -> float:
        now = self._clock()
        if self._settings.enabled and self.in_flight >= self.value:
            raise self._refusal(now)
        self.in_flight += 1
        return now

    def _leave(self, began: float, in_use: int, error: BaseException | None) -> None:
        """Takes a permit back.

        Args:
            began: When it was taken.
            in_use: Calls in flight then, itself included.
            error: What the call ended with; None: an answer.
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
            # The limit's worth of answers comes in one round trip: one each, or one all together.
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
        """Takes account of a call that the service had to do; the first to end of those begun in a round ends it."""
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
        self._limit = min(max(limit, float(self._settings.min)), float(self._settings.max))

    def _refusal(self, now: float) -> TorchlessError:
        """OVERLOADED. Whoever is refused n-th in a round trip is told to come n places later."""
        self.refused += 1
        usual = self._service_s
        if now - self._refusals_since >= (usual or _HINT_UNMEASURED_S):
            self._refusals_since, self._recent_refusals = now, 0
        self._recent_refusals += 1
        hint = _HINT_UNMEASURED_S if usual is None else usual * (1 + self._recent_refusals / self._limit)
        return TorchlessError(
            ErrorKind.OVERLOADED,
            f"as many calls as the {self._capability} service can take are under way; try again after the time given",
            retry_after_s=min(max(hint, _SHORTEST_HINT_S), _LONGEST_HINT_S),
        )


class Permit:
    """Leave for one call: a context manager to be entered once, which learns from what passes through it."""

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
