"""Waits until something is so, instead of sleeping for a guessed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

_POLL_S = 0.005


async def until(
    condition: Callable[[], bool | Awaitable[bool]],
    within_s: float = 30.0,
    *,
    explain: Callable[[], str] = lambda: "",
) -> float:
    """Returns once `condition` holds, with the seconds that it took; fails the test after `within_s` seconds.

    Args:
        condition: Polled every 5 ms; may be a coroutine function.
        within_s: The longest wait, in seconds.
        explain: What to say in the failure, for instance the end of a log.
    """
    started = time.monotonic()
    while True:
        holds = condition()
        if await holds if inspect.isawaitable(holds) else holds:
            return time.monotonic() - started
        _check(started, within_s, explain)
        await asyncio.sleep(_POLL_S)


def wait_until(
    condition: Callable[[], bool], within_s: float = 30.0, *, explain: Callable[[], str] = lambda: ""
) -> float:
    """As `until`, for tests without an event loop."""
    started = time.monotonic()
    while not condition():
        _check(started, within_s, explain)
        time.sleep(_POLL_S)
    return time.monotonic() - started


def _check(started: float, within_s: float, explain: Callable[[], str]) -> None:
    assert time.monotonic() - started < within_s, f"it did not happen within {within_s:g} s\n{explain()}"
