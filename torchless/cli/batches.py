"""Calls with long inputs in bounded batches, a few at a time, with results in the order of the input."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
MAX_TEXTS = 256
"""Most texts in one call."""
MAX_CHARACTERS = 1_000_000
"""Most characters in one call, unless one text alone is longer."""
CALLS_IN_FLIGHT = 4
"""Calls at the same time: enough to keep a service busy, and few enough to leave capacity for other callers."""


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in batches; reads no further than the batch that it returns."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == MAX_TEXTS or characters + len(text) > MAX_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


async def in_batches(
    texts: Iterable[str], call: Callable[[list[str]], Coroutine[Any, Any, T]]
) -> AsyncIterator[tuple[list[str], T]]:
    """Makes a call for each batch; gives each batch with its result, in the order of the texts.

    Args:
        texts: Read as far ahead as calls are in flight.
        call: Makes one call. After its first error no other call begins, and those in flight are cancelled.
    """
    calls: deque[tuple[list[str], asyncio.Task[T]]] = deque()
    try:
        for batch in batches(texts):
            calls.append((batch, asyncio.create_task(call(batch))))
            if len(calls) == CALLS_IN_FLIGHT:
                yield calls[0][0], await calls[0][1]
                calls.popleft()
        while calls:
            yield calls[0][0], await calls[0][1]
            calls.popleft()
    finally:
        for _, task in calls:
            task.cancel()
        await asyncio.gather(*(task for _, task in calls), return_exceptions=True)
