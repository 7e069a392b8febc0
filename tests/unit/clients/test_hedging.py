"""A second attempt while the first is late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from torchless.clients.hedging import Hedging
from torchless.clients.settings import HedgingSettings
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.errors import ErrorKind, TorchlessError

FIRST, SECOND = TorchlessError(ErrorKind.UNREACHABLE, "first"), TorchlessError(ErrorKind.OVERLOADED, "second")


class Attempt:
    """One that takes a time and then answers or fails."""

    def __init__(self, seconds: float, result: str | TorchlessError | None) -> None:
        self._seconds, self._result = seconds, result
        self.begun = self.cancelled = False

    async def __call__(self) -> str | None:
        self.begun = True
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if isinstance(self._result, TorchlessError):
            raise self._result
        return self._result


async def raced(first: Attempt, second: Attempt, wait_s: float | None = 0.02) -> str | TorchlessError:
    hedging = Hedging(HedgingSettings(enabled=True))
    hedging._wait_s = wait_s
    before = asyncio.all_tasks()
    make: Callable[[], Awaitable[str]] = first  # type: ignore[assignment]
    try:
        return await hedging.first_of(make, second)
    except TorchlessError as error:
        return error
    finally:
        assert asyncio.all_tasks() == before


async def test_one_in_time_is_alone() -> None:
    second = Attempt(0, "second")
    assert await raced(Attempt(0, "first"), second) == "first"
    assert not second.begun


async def test_before_anything_is_known_nobody_is_late() -> None:
    second = Attempt(0, "second")
    assert await raced(Attempt(0.1, "first"), second, wait_s=None) == "first"
    assert not second.begun


async def test_the_loser_is_cancelled() -> None:
    first, second = Attempt(10, "first"), Attempt(0.01, "second")
    assert await raced(first, second) == "second"
    assert first.cancelled

    first, second = Attempt(0.05, "first"), Attempt(10, "second")
    assert await raced(first, second) == "first"
    assert second.cancelled


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        (Attempt(0, FIRST), Attempt(0, "second"), FIRST),  # it was not late: trying again is not a hedge's
        (Attempt(0.04, FIRST), Attempt(0.06, "second"), "second"),
        (Attempt(0.06, "first"), Attempt(0, SECOND), "first"),
        (Attempt(0.04, FIRST), Attempt(0.06, SECOND), FIRST),
        (Attempt(0.06, FIRST), Attempt(0, SECOND), FIRST),
        (Attempt(0.06, "first"), Attempt(0, None), "first"),
        (Attempt(0.06, FIRST), Attempt(0, None), FIRST),
    ],
)
async def test_failures(first: Attempt, second: Attempt, result: str | TorchlessError) -> None:
    assert await raced(first, second) is result


async def test_a_caller_who_hangs_up_cancels_both() -> None:
    first, second = Attempt(10, "first"), Attempt(10, "second")
    call = asyncio.ensure_future(raced(first, second, wait_s=0.001))
    while not second.begun:  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(0.001)
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert first.cancelled
    assert second.cancelled


async def test_late_is_what_most_are_not() -> None:
    hedging = Hedging(HedgingSettings(enabled=True, quantile=0.9, min_s=0.001))
    for number in range(100):
        hedging._learn(0.1 if number % 20 else 1.0)
    assert hedging._wait_s == pytest.approx(0.1)
    for _ in range(512):
        hedging._learn(0.00001)
    assert hedging._wait_s == 0.001  # never sooner than that


def test_only_small_requests_are_hedged_and_only_when_it_is_asked_for() -> None:
    small, large = (pb.GenerateEmbeddingsRequest(texts=[text]).ByteSize() for text in ("a", "a" * 20_000))
    on, off = Hedging(HedgingSettings(enabled=True)), Hedging(HedgingSettings())
    assert [on.applies_to(small), on.applies_to(large), off.applies_to(small)] == [True, False, False]
    off.reconfigure(HedgingSettings(enabled=True, max_bytes=0))
    assert not off.applies_to(small)
