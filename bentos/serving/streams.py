"""Streams: those that are worked on side by side and answered in order, and those that something else ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

_END: Any = object()


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


async def ended_by(answers: AsyncGenerator[A, None], end: Coroutine[Any, Any, object]) -> AsyncGenerator[A, None]:
    """The answers until they end or `end` does; what `end` raises is raised."""
    over = asyncio.create_task(end)
    coming: asyncio.Future[A] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(answers, _END))
            await asyncio.wait({over, coming}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                over.result()
                return
            if (answer := await coming) is _END:
                return
            yield answer
    finally:
        unfinished = [task for task in (over, coming) if task is not None]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await answers.aclose()
