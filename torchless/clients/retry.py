"""When a call is tried again: which errors, how long after, and how often in all."""

from __future__ import annotations

import random
from dataclasses import dataclass

from torchless.clients.settings import RetrySettings
from torchless.contracts.errors import ErrorKind, TorchlessError

_ELSEWHERE = frozenset({ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED})
"""Nothing was begun, and trying the same endpoint again would only add to its load."""


@dataclass(frozen=True, slots=True)
class Again:
    """How the next attempt is made."""

    only_others: bool
    """Whether only an endpoint that the call has not met will do."""
    pause_s: float
    """Time to wait before it, in seconds."""


def next_attempt(error: TorchlessError, attempts: int, settings: RetrySettings, *, repeatable: bool) -> Again | None:
    """The attempt after one that failed with `error`; None: there is none.

    Args:
        error: Why the last attempt failed.
        attempts: Attempts made so far.
        settings: Numbers and times.
        repeatable: Whether a call whose answer was lost may be made once more.
    """
    if attempts >= settings.attempts:
        return None
    if error.kind is ErrorKind.UNREACHABLE and repeatable:
        return Again(only_others=False, pause_s=pause_s(attempts, settings))
    if attempts == 1 and (error.kind in _ELSEWHERE or (error.kind is ErrorKind.GPU_UNAVAILABLE and repeatable)):
        return Again(only_others=True, pause_s=0.0)
    return None


def pause_s(attempts: int, settings: RetrySettings) -> float:
    """Seconds before the next of so many attempts: exponential backoff with full jitter.

    Source: Marc Brooker, Exponential Backoff and Jitter, 2015.
    """
    # 2 ** 1024 is no float; long before that the limit holds.
    ceiling = min(settings.max_s, settings.base_s * 2 ** min(attempts - 1, 64))
    return random.uniform(0, ceiling)  # noqa: S311  # only spreads them


class RetryBudget:
    """Bounds retries to a share of calls, so that they cannot make an outage worse.

    Each call saves up a part of a retry, at most a reserve of them; each retry takes a whole one.

    Args:
        settings: Share and reserve.
    """

    def __init__(self, settings: RetrySettings) -> None:
        self._settings = settings
        self._saved = float(settings.reserve)

    def reconfigure(self, settings: RetrySettings) -> None:
        """Another share and reserve from now on."""
        self._settings = settings
        self._saved = min(self._saved, settings.reserve)

    def call(self) -> None:
        """A call was made."""
        self._saved = min(self._settings.reserve, self._saved + self._settings.budget)

    def take(self) -> bool:
        """Whether a retry may be made; it is then counted."""
        if self._saved < 1 - 1e-6:  # sums of floats
            return False
        self._saved -= 1
        return True

    def give_back(self) -> None:
        """A retry that was taken is not made after all."""
        self._saved = min(self._settings.reserve, self._saved + 1)
