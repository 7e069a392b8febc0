"""Long inputs in bounded batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from torchless.cli.batches import CALLS_IN_FLIGHT, MAX_CHARACTERS, MAX_TEXTS, batches, in_batches


def test_batches_keep_every_text_in_order_and_are_bounded() -> None:
    texts = [str(number) for number in range(2 * MAX_TEXTS + 1)]
    found = list(batches(texts))
    assert [len(batch) for batch in found] == [MAX_TEXTS, MAX_TEXTS, 1]
    assert [text for batch in found for text in batch] == texts


def test_batches_are_bounded_by_characters_unless_one_text_is_longer() -> None:
    half, longer = "a" * (MAX_CHARACTERS // 2 + 1), "b" * (MAX_CHARACTERS + 1)
    assert [len(batch) for batch in batches([half, half, longer, "c"])] == [1, 1, 1, 1]
    assert [len(batch) for batch in batches(["a" * (MAX_CHARACTERS // 2)] * 3)] == [2, 1]


async def test_results_come_in_the_order_of_the_texts_while_input_is_still_read() -> None:
    read, shown = 0, []

    def texts() -> Iterator[str]:
        nonlocal read
        for number in range(20 * MAX_TEXTS):
            read += 1
            yield str(number)

    async def call(batch: list[str]) -> str:
        await asyncio.sleep(0.001 * (int(batch[0]) % 3))
        return batch[0]

    async for batch, first in in_batches(texts(), call):
        shown.append(first)
        assert batch[0] == first
        assert read <= (len(shown) + CALLS_IN_FLIGHT) * MAX_TEXTS + 1
    assert shown == [str(number * MAX_TEXTS) for number in range(20)]


async def test_a_result_does_not_wait_for_texts_that_are_slow_to_come() -> None:
    more = threading.Event()

    def texts() -> Iterator[str]:
        yield from map(str, range(2 * MAX_TEXTS + 1))
        assert more.wait(20)
        yield "last"

    async def call(batch: list[str]) -> str:
        return batch[0]

    shown = []
    async for _, first in in_batches(texts(), call):
        shown.append(first)
        if len(shown) == 2:
            more.set()
    assert shown == ["0", str(MAX_TEXTS), str(2 * MAX_TEXTS)]


async def test_an_error_of_the_input_is_raised() -> None:
    def texts() -> Iterator[str]:
        yield "a"
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "no")

    async def call(batch: list[str]) -> None: ...

    with pytest.raises(UnicodeDecodeError):
        async for _ in in_batches(texts(), call):
            pass


async def test_calls_in_flight_are_bounded_and_end_after_an_error() -> None:
    running, most, begun = 0, 0, 0

    async def call(batch: list[str]) -> None:
        nonlocal running, most, begun
        running, begun = running + 1, begun + 1
        most = max(most, running)
        try:
            await asyncio.sleep(0 if batch[0] != str(2 * MAX_TEXTS) else 0.001)
            if batch[0] == str(2 * MAX_TEXTS):
                raise ValueError("no")
        finally:
            running -= 1

    with pytest.raises(ValueError, match="no"):
        async for _ in in_batches((str(number) for number in range(50 * MAX_TEXTS)), call):
            pass
    assert most <= CALLS_IN_FLIGHT
    assert begun <= 2 + CALLS_IN_FLIGHT
    assert running == 0
