"""Retries: after which errors, after which pause, and how many in total."""

from __future__ import annotations

import random
from dataclasses import dataclass

from torchless.clients.settings import RetrySettings
from torchless.contracts.errors import Retry, TorchlessError


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """How the next attempt is made."""

    only_others: bool
    """Whether only a healthy endpoint that the call has not tried will do."""
    pause_s: float
    """Pause before it, in seconds."""


def plan_retry(error: TorchlessError, attempts: int, settings: RetrySettings, *, repeatable: bool) -> RetryPlan | None:
    """How to retry a call that failed with `error`; None: not at all.

    Args:
        error: Why the last attempt failed.
        attempts: Attempts made so far.
        settings: Limits and pauses.
        repeatable: Whether the call may run twice, as its answer may have been lost.
    """
    policy = error.kind.policy
    if attempts >= settings.attempts or not (repeatable or policy.not_started):
        return None
    if policy.retry is Retry.ANYWHERE:
        return RetryPlan(only_others=False, pause_s=pause_s(attempts, settings))
    if policy.retry is Retry.ELSEWHERE and attempts == 1:
        return RetryPlan(only_others=True, pause_s=0.0)
    return None


def pause_s(attempts: int, settings: RetrySettings) -> float:
    """Seconds before the next of so many attempts: exponential backoff with full jitter.

    Source: Marc Brooker, Exponential Backoff and Jitter, 2015.
    """
    # 2 ** 1024 is no float; long before that the limit applies.
    ceiling = min(settings.max_s, settings.base_s * 2 ** min(attempts - 1, 64))
    return random.uniform(0, ceiling)  # noqa: S311  # only spreads them


class RetryBudget:
    """Limits retries to a share of calls, so that they cannot make an outage worse.

    Each call adds a part of a retry, up to a reserve; each retry takes a whole one.

    Args:
        settings: Share and reserve.
    """

    def __init__(self, settings: RetrySettings) -> None:
        self._settings = settings
        self._saved = float(settings.reserve)

    def reconfigure(self, settings: RetrySettings) -> None:
        """Applies another share and reserve from now on."""
        self._settings = settings
        self._saved = min(self._saved, settings.reserve)

    def add_call(self) -> None:
        """Adds the share of one call."""
        self._saved = min(self._settings.reserve, self._saved + self._settings.budget)

    def take(self) -> bool:
        """Takes one retry; False: the budget is spent."""
        if self._saved < 1 - 1e-6:  # sums of floats
            return False
        self._saved -= 1
        return True

    def give_back(self) -> None:
        """Returns a retry that was taken but not made."""
        self._saved = min(self._settings.reserve, self._saved + 1)
