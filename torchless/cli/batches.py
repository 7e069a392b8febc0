"""Calls with long inputs in bounded batches, a few at a time, with results in the order of the input."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from threading import Thread
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
        texts: Read as far ahead as calls are in flight; a result does not wait for texts that are slow to come.
        call: Makes one call. After its first error no other call begins, and those in flight are cancelled.
    """
    source = batches(texts)
    calls: deque[tuple[list[str], asyncio.Task[T]]] = deque()
    reading: asyncio.Future[list[str] | None] | None = _read(source)
    try:
        while reading or calls:
            awaited: set[asyncio.Future[Any]] = {calls[0][1]} if calls else set()
            if reading and len(calls) < CALLS_IN_FLIGHT:
                awaited.add(reading)
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if calls and calls[0][1].done():
                yield calls[0][0], calls[0][1].result()
                calls.popleft()
            elif reading and reading.done():
                batch = reading.result()
                reading = None
                if batch is not None:
                    calls.append((batch, asyncio.create_task(call(batch))))
                    reading = _read(source)
    finally:
        for _, task in calls:
            task.cancel()
        await asyncio.gather(*(task for _, task in calls), return_exceptions=True)


def _read(source: Iterator[list[str]]) -> asyncio.Future[list[str] | None]:
    """Reads the next batch in a thread, or None at the end.

    The thread is a daemon: a command that has failed must end, though more input may never come.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str] | None] = loop.create_future()

    def deliver(batch: list[str] | None, error: Exception | None) -> None:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(batch)

    def read() -> None:
        batch, failure = None, None
        try:
            batch = next(source, None)
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(deliver, batch, failure)

    Thread(target=read, daemon=True).start()
    return future
