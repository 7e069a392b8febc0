"""Streams with concurrent work and answers in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from bentos.serving.streams import ended_by, in_order


async def counting(count: int, taken: list[int]) -> AsyncGenerator[int, None]:
    for n in range(count):
        taken.append(n)
        yield n


async def test_answers_keep_the_order_of_the_source() -> None:
    async def slow_first(n: int) -> int:
        await asyncio.sleep(0.02 if n % 3 == 0 else 0)
        return n * n

    assert [a async for a in in_order(counting(20, []), slow_first, window=5)] == [n * n for n in range(20)]


async def test_window_limits_how_much_is_read() -> None:
    taken: list[int] = []
    gate = asyncio.Event()

    async def gated(n: int) -> int:
        await gate.wait()
        return n

    answers = in_order(counting(100, taken), gated, window=3)
    first = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0.02)
    assert taken == [0, 1, 2]
    gate.set()
    assert await first == 0
    await asyncio.sleep(0.02)
    assert taken == [0, 1, 2]  # the first is sent only when the next is requested
    assert await anext(answers) == 1
    await asyncio.sleep(0.02)
    assert taken == [0, 1, 2, 3]
    await answers.aclose()


async def test_answer_arrives_before_the_next_item_is_sent() -> None:
    """A caller that waits for each answer before it sends the next must not wait for ever."""
    sent: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncGenerator[int, None]:
        while True:
            yield await sent.get()

    async def echo(n: int) -> int:
        return n

    answers = in_order(source(), echo, window=4)
    for n in range(5):
        sent.put_nowait(n)
        async with asyncio.timeout(5):
            assert await anext(answers) == n
    await answers.aclose()


async def test_error_ends_the_stream_and_cancels_the_rest() -> None:
    cancelled: list[int] = []

    async def failing(n: int) -> int:
        if n == 1:
            raise ValueError("the second")
        try:
            await asyncio.sleep(0 if n == 0 else 60)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise
        return n

    answers = in_order(counting(10, []), failing, window=4)
    assert await anext(answers) == 0
    with pytest.raises(ValueError, match="the second"):
        await anext(answers)
    await asyncio.sleep(0.01)
    assert {2, 3} <= set(cancelled) <= {2, 3, 4}


async def test_error_of_the_source_is_raised_after_earlier_answers() -> None:
    async def broken() -> AsyncGenerator[int, None]:
        yield 1
        raise OSError("hung up")

    async def echo(n: int) -> int:
        return n

    answers = in_order(broken(), echo, window=4)
    assert await anext(answers) == 1
    with pytest.raises(OSError, match="hung up"):
        await anext(answers)


async def forever(ended: asyncio.Event) -> AsyncGenerator[int, None]:
    try:
        yield 1
        await asyncio.Event().wait()
    finally:
        ended.set()


async def test_ended_stream_raises_the_reason_and_is_closed() -> None:
    closed, end = asyncio.Event(), asyncio.Event()

    async def ends() -> None:
        await end.wait()
        raise ValueError("over")

    answers = ended_by(forever(closed), ends())
    assert await anext(answers) == 1
    end.set()
    with pytest.raises(ValueError, match="over"):
        await anext(answers)
    assert closed.is_set()


async def test_stream_that_completes_does_not_wait_for_its_end() -> None:
    async with asyncio.timeout(5):
        assert [n async for n in ended_by(counting(3, []), asyncio.Event().wait())] == [0, 1, 2]


async def test_abandoned_stream_leaves_no_task_behind() -> None:
    closed = asyncio.Event()
    before = asyncio.all_tasks()
    answers = ended_by(forever(closed), asyncio.Event().wait())
    assert await anext(answers) == 1
    await answers.aclose()
    assert closed.is_set()
    assert asyncio.all_tasks() == before
