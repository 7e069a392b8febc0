"""A second attempt at another endpoint while the first is late.

Source: Jeffrey Dean and Luiz André Barroso, The Tail at Scale, 2013: waiting for the time that most calls take before
the second is sent cuts the tail at the price of a few more calls.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

from torchless.clients.settings import HedgingSettings

T = TypeVar("T")
_REMEMBERED = 256
_RECKONED_EVERY = 32
_LEAST_KNOWN = 32
"""Calls that must have been seen before anything is called late."""


class Hedging:
    """Knows how long calls take, and makes the second attempt.

    Args:
        settings: Which calls, and how late.
    """

    def __init__(self, settings: HedgingSettings) -> None:
        self._settings = settings
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self._seen = 0
        self._wait_s: float | None = None

    def reconfigure(self, settings: HedgingSettings) -> None:
        """Other settings from now on."""
        self._settings = settings

    def applies_to(self, size: int) -> bool:
        """Whether a call with a request of `size` bytes may be made twice."""
        return self._settings.enabled and size <= self._settings.max_bytes

    async def first_of(self, first: Callable[[], Awaitable[T]], second: Callable[[], Awaitable[T | None]]) -> T:
        """The first answer; what is still under way then is cancelled.

        Args:
            first: Makes the first attempt.
            second: Makes the second, once the first is late; None: there was nobody to make it at.

        Raises:
            TorchlessError: What the first attempt raised, when neither answers.
        """
        started = time.monotonic()
        tasks: list[asyncio.Task[T | None]] = [asyncio.ensure_future(_awaited(first))]
        try:
            await asyncio.wait(tasks, timeout=self._wait_s)
            if not tasks[0].done():
                tasks.append(asyncio.ensure_future(_awaited(second)))
            answer = await _first_good(tasks)
            if answer is None:
                answer = tasks[0].result()
                assert answer is not None  # noqa: S101  # the first attempt answers or raises
            self._learn(time.monotonic() - started)
            return answer
        finally:
            await _end(tasks)
            tasks.clear()  # an error's trace holds this frame: a circle, which only the garbage collector would undo

    def _learn(self, latency_s: float) -> None:
        self._recent.append(latency_s)
        self._seen += 1
        if self._seen >= _LEAST_KNOWN and self._seen % _RECKONED_EVERY == 0:
            usual_s = float(np.quantile(self._recent, self._settings.quantile))
            self._wait_s = max(usual_s, self._settings.min_s)


async def _awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


async def _first_good(tasks: Sequence[asyncio.Task[T | None]]) -> T | None:
    """The first answer; None: there is none."""
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                answer = task.result()
                if answer is not None:
                    return answer
    return None


async def _end(tasks: Sequence[asyncio.Task[T | None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that nobody warns of it
