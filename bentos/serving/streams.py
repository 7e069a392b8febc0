"""Helpers for gRPC streams: concurrent work with answers in order, and streams that end early."""

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
    """Answers the items of `source` concurrently, in their order.

    At most `window` items are in progress or waiting to be sent. The next item is read only after an answer was sent,
    so that flow control reaches the sender. An exception of `answer` or `source` ends the stream and cancels the rest.
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
        await reader  # raises the exception of `source`
    finally:
        left: list[asyncio.Task[A] | asyncio.Task[None] | None] = [reader, current]
        while not started.empty():
            left.append(started.get_nowait())
        unfinished = [task for task in left if task is not None]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


async def ended_by(answers: AsyncGenerator[A, None], end: Coroutine[Any, Any, object]) -> AsyncGenerator[A, None]:
    """Yields `answers` until they end or `end` completes; raises the exception of `end`."""
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
