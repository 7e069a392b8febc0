"""Bidirectional streams that are worked on side by side and answered in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


async def in_order(
    source: AsyncIterable[Q], answer: Callable[[Q], Awaitable[A]], window: int
) -> AsyncGenerator[A, None]:
    """The answers to what comes from `source`, in its order, each as soon as those before it are out.

    At most `window` are being worked on or waiting to be sent; the next is read only when one was sent, so that flow
    control reaches whoever sends. What `answer` or `source` raises ends the stream and cancels the rest.
    """
    slots = asyncio.Semaphore(window)
    started: asyncio.Queue[asyncio.Task[A] | None] = asyncio.Queue()

    async def one(item: Q) -> A:
        return await answer(item)

    async def read() -> None:
        try:
            incoming = aiter(source)
            while True:
                await slots.acquire()
                item = await anext(incoming, None)
                if item is None:
                    return
                started.put_nowait(asyncio.create_task(one(item)))
        finally:
            started.put_nowait(None)

    reader = asyncio.create_task(read())
    current: asyncio.Task[A] | None = None
    try:
        while (current := await started.get()) is not None:
            yield await current
            slots.release()
        await reader  # raises what reading raised
    finally:
        left: list[asyncio.Task[A] | asyncio.Task[None] | None] = [reader, current]
        while not started.empty():
            left.append(started.get_nowait())
        unfinished = [task for task in left if task is not None]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
