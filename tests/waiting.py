"""Waits until something holds, instead of sleeping for a guessed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.05


async def until(
    condition: Callable[[], bool | Awaitable[bool]], what: str | Callable[[], str] = "", *, within_s: float = 30.0
) -> float:
    """Returns once `condition` holds, with the seconds that it took; fails the test after `within_s` seconds.

    Args:
        condition: What is polled, every 5 ms at first and every 50 ms later; may be a coroutine function.
        what: What the failure says, or a function that gives it, for instance one that reads a log.
        within_s: The longest wait, in seconds.
    """
    started = time.monotonic()
    for pause_s in _pauses(started, what, within_s):
        holds = condition()
        if await holds if inspect.isawaitable(holds) else holds:
            break
        await asyncio.sleep(pause_s)
    return time.monotonic() - started


def wait_until(condition: Callable[[], bool], what: str | Callable[[], str] = "", *, within_s: float = 30.0) -> float:
    """As `until`, for tests without an event loop."""
    started = time.monotonic()
    for pause_s in _pauses(started, what, within_s):
        if condition():
            break
        time.sleep(pause_s)
    return time.monotonic() - started


def _pauses(started: float, what: str | Callable[[], str], within_s: float) -> Iterator[float]:
    pause_s = _FIRST_PAUSE_S
    while True:
        if time.monotonic() - started > within_s:
            raise AssertionError(f"not within {within_s:g} s: {what() if callable(what) else what}")
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
