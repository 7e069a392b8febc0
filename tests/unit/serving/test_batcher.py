"""The batcher on an event loop, with a fake device."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentos.serving.batching import Batcher, BatchingSettings, BatchLimits, Outcome, Work
from torchless.contracts.errors import ErrorKind, TorchlessError

LIMITS = BatchLimits(max_tokens=64, max_items=8, padding_share=0.5, free_padding_tokens=16)


class Device:
    """Doubles numbers. Holds each batch until `gate` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []
        self.poison: int | None = None
        self.failure: Exception | None = None

    def run(self, key: Hashable, payloads: list[int]) -> Sequence[int]:
        self.entered.set()
        if not self.gate.wait(10):
            raise RuntimeError("the test forgot the gate")
        self.batches.append(payloads)
        if self.failure is not None:
            raise self.failure
        if self.poison in payloads:
            raise ValueError("poison")
        return [2 * each for each in payloads]


@asynccontextmanager
async def running(
    device: Device, clock: Callable[[], float] = time.monotonic, **options: float
) -> AsyncIterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher(
        device.run, lambda key: LIMITS, BatchingSettings.model_validate(options), clock=clock
    )
    batcher.start()
    try:
        yield batcher
    finally:
        device.gate.set()
        await batcher.stop()


async def plugged(device: Device, batcher: Batcher[int, int]) -> asyncio.Task[Outcome[int]]:
    """A request that holds the device until `gate` is set, so that what comes after it waits."""
    device.gate.clear()
    plug = asyncio.create_task(batcher.submit(work(0)))
    await asyncio.to_thread(device.entered.wait)
    await asyncio.sleep(0.01)  # its tokens no longer count as waiting
    return plug


def work(*payloads: int, tokens: int = 4, expires_at: float | None = None, flow: str | None = None) -> Work[int]:
    return Work("key", [tokens] * len(payloads), list(payloads), flow, expires_at)


def nothing_is_held(batcher: Batcher[int, int]) -> bool:
    return (batcher.waiting_tokens, batcher.admission.tokens, batcher.admission.requests) == (0, 0, 0)


async def test_concurrent_requests_share_batches_and_get_their_own_answers() -> None:
    device = Device()
    async with running(device) as batcher:
        device.gate.clear()
        first = asyncio.create_task(batcher.submit(work(0)))
        await asyncio.to_thread(device.entered.wait)
        others = [asyncio.create_task(batcher.submit(work(n, n + 100))) for n in range(1, 4)]
        await asyncio.sleep(0)
        device.gate.set()
        assert (await first).results == [0]
        assert [(await each).results for each in others] == [[2, 202], [4, 204], [6, 206]]
        assert [len(one) for one in device.batches] == [1, 6]
        assert nothing_is_held(batcher)


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=30), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_request_is_answered_in_its_own_order(requests: list[list[int]]) -> None:
    async def scenario() -> None:
        device = Device()
        async with running(device) as batcher:
            each = [Work("key", [1 + n % 60 for n in numbers], numbers) for numbers in requests]
            outcomes = await asyncio.gather(*(batcher.submit(one) for one in each))
            assert [o.results for o in outcomes] == [[2 * n for n in numbers] for numbers in requests]
            assert nothing_is_held(batcher)

    asyncio.run(scenario())


async def test_failing_item_fails_only_its_own_request() -> None:
    device = Device()
    async with running(device) as batcher:
        device.poison = 13
        plug = await plugged(device, batcher)
        each = [asyncio.create_task(batcher.submit(work(n))) for n in (1, 13, 2)]
        await asyncio.sleep(0)
        device.gate.set()
        await plug
        outcomes = await asyncio.gather(*each, return_exceptions=True)
        assert [getattr(o, "results", None) for o in outcomes] == [[2], None, [4]]
        assert isinstance(outcomes[1], TorchlessError)
        assert outcomes[1].kind is ErrorKind.INTERNAL
        assert "poison" not in outcomes[1].message
        assert nothing_is_held(batcher)


async def test_lost_device_fails_the_whole_batch_without_a_retry() -> None:
    device = Device()
    async with running(device) as batcher:
        device.failure = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "gone")
        plug = await plugged(device, batcher)
        each = [asyncio.create_task(batcher.submit(work(n))) for n in (1, 2)]
        await asyncio.sleep(0)
        device.gate.set()
        outcomes = await asyncio.gather(plug, *each, return_exceptions=True)
        assert [o.kind for o in outcomes if isinstance(o, TorchlessError)] == [ErrorKind.GPU_UNAVAILABLE] * 3
        assert len(device.batches) == 2


async def test_cancelled_request_is_not_computed() -> None:
    device = Device()
    async with running(device) as batcher:
        plug = await plugged(device, batcher)
        doomed = asyncio.create_task(batcher.submit(work(7, 8)))
        kept = asyncio.create_task(batcher.submit(work(9)))
        await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.sleep(0)
        assert batcher.waiting_tokens == 4
        device.gate.set()
        assert (await plug).results + (await kept).results == [0, 18]
        with pytest.raises(asyncio.CancelledError):
            await doomed
        assert device.batches == [[0], [9]]
        assert nothing_is_held(batcher)


async def test_expired_request_fails_and_is_not_computed() -> None:
    now = [100.0]
    device = Device()
    async with running(device, clock=lambda: now[0]) as batcher:
        plug = await plugged(device, batcher)
        late = asyncio.create_task(batcher.submit(work(7, expires_at=105.0)))
        timely = asyncio.create_task(batcher.submit(work(9, expires_at=500.0)))
        await asyncio.sleep(0)
        now[0] = 106.0
        device.gate.set()
        with pytest.raises(TorchlessError) as caught:
            await late
        assert caught.value.kind is ErrorKind.DEADLINE
        assert (await timely).results == [18]
        await plug
        assert device.batches == [[0], [9]]
        assert nothing_is_held(batcher)


async def test_requests_above_the_limit_are_refused_with_a_hint_until_capacity_is_free() -> None:
    device = Device()
    async with running(device, max_waiting_tokens=16) as batcher:
        plug = await plugged(device, batcher)
        fills = asyncio.create_task(batcher.submit(work(1, 2, 3, 4)))
        await asyncio.sleep(0)
        with pytest.raises(TorchlessError) as caught:
            await batcher.submit(work(5))
        assert caught.value.kind is ErrorKind.OVERLOADED
        assert caught.value.retry_after_s is not None
        assert 0.1 <= caught.value.retry_after_s <= 60
        device.gate.set()
        await asyncio.gather(plug, fills)
        assert (await batcher.submit(work(5))).results == [10]
        assert nothing_is_held(batcher)


async def test_request_larger_than_the_queue_is_input_too_large() -> None:
    async with running(Device(), max_waiting_tokens=16) as batcher:
        with pytest.raises(TorchlessError) as caught:
            await batcher.submit(work(1, 2, 3, 4, 5))
        assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
        assert "20 tokens" in caught.value.message
        assert nothing_is_held(batcher)


async def test_bulk_caller_waits_until_capacity_is_free() -> None:
    device = Device()
    async with running(device, max_waiting_tokens=32) as batcher:
        plug = await plugged(device, batcher)
        bulk = [asyncio.create_task(batcher.submit(work(n, n), wait_for_room=True)) for n in range(1, 9)]
        await asyncio.sleep(0)
        assert batcher.admission.tokens == 16
        bulk[7].cancel()
        small = asyncio.create_task(batcher.submit(work(99)))  # the other half is for those who do not wait
        await asyncio.sleep(0)
        assert batcher.admission.tokens == 20
        device.gate.set()
        answers = await asyncio.gather(plug, *bulk[:7])
        assert (await small).results == [198]
        assert [a.results for a in answers[1:]] == [[2 * n, 2 * n] for n in range(1, 8)]
        assert nothing_is_held(batcher)


async def test_item_larger_than_a_batch_is_refused_and_releases_its_tokens() -> None:
    async with running(Device()) as batcher:
        with pytest.raises(ValueError, match="1 to 64 tokens"):
            await batcher.submit(work(1, tokens=65))
        assert nothing_is_held(batcher)


async def test_stop_answers_waiting_requests_and_refuses_new_ones() -> None:
    device = Device()
    async with running(device) as batcher:
        device.gate.clear()
        waiting = [asyncio.create_task(batcher.submit(work(n))) for n in range(20)]
        await asyncio.to_thread(device.entered.wait)
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0.01)
        with pytest.raises(TorchlessError) as caught:
            await batcher.submit(work(99))
        assert caught.value.kind is ErrorKind.UNREACHABLE
        device.gate.set()
        assert [(await each).results for each in waiting] == [[2 * n] for n in range(20)]
        await stopping
        assert nothing_is_held(batcher)


async def test_window_waits_for_callers_that_were_answered_together() -> None:
    device = Device()
    async with running(device, window_ms=1000) as batcher:
        assert (await batcher.submit(work(0))).results == [0]  # alone: nothing to wait for
        await batcher.submit(work(1, 2, 3))
        first = asyncio.create_task(batcher.submit(work(4)))
        await asyncio.sleep(0.05)
        assert len(device.batches) == 2  # held, since the last batch had three
        others = [asyncio.create_task(batcher.submit(work(n))) for n in (5, 6)]
        await asyncio.gather(first, *others)
        assert sorted(device.batches[2]) == [4, 5, 6]


async def test_window_without_new_items_ends_and_is_not_repeated() -> None:
    device = Device()
    async with running(device, window_ms=20) as batcher:
        await batcher.submit(work(1, 2, 3))
        assert (await batcher.submit(work(4))).queue_s >= 0.02
        assert (await batcher.submit(work(5))).queue_s < 0.02


async def test_model_with_too_few_results_is_an_error() -> None:
    batcher: Batcher[int, int] = Batcher(lambda key, payloads: [], lambda key: LIMITS, BatchingSettings())
    batcher.start()
    with pytest.raises(TorchlessError) as caught:
        await batcher.submit(work(1))
    assert caught.value.kind is ErrorKind.INTERNAL
    await batcher.stop()


async def test_cancelled_first_waiter_admits_the_next() -> None:
    device = Device()
    async with running(device, max_waiting_tokens=40) as batcher:
        plug = await plugged(device, batcher)
        taken = asyncio.create_task(batcher.submit(work(1, 2, 3)))  # 12 of the 20 for those who wait
        await asyncio.sleep(0)
        head = asyncio.create_task(batcher.submit(work(4, 5, 6), wait_for_room=True))
        behind = asyncio.create_task(batcher.submit(work(7), wait_for_room=True))
        await asyncio.sleep(0)
        assert batcher.admission.tokens == 12
        head.cancel()
        await asyncio.sleep(0.01)
        assert batcher.admission.tokens == 16
        device.gate.set()
        assert (await behind).results == [14]
        await asyncio.gather(plug, taken)
        assert nothing_is_held(batcher)


async def test_request_that_would_expire_in_the_queue_is_refused_at_once() -> None:
    now = [0.0]
    device = Device()
    async with running(device, clock=lambda: now[0]) as batcher:
        for _ in range(2):
            batcher.admission.drain_rate.observe(40, 1.0)  # 40 tokens a second
        plug = await plugged(device, batcher)
        waiting = [asyncio.create_task(batcher.submit(work(n))) for n in range(1, 11)]  # 40 tokens: one second
        await asyncio.sleep(0)
        with pytest.raises(TorchlessError) as caught:
            await batcher.submit(work(98, expires_at=0.5))
        assert caught.value.kind is ErrorKind.OVERLOADED
        patient = asyncio.create_task(batcher.submit(work(99, expires_at=60.0)))
        await asyncio.sleep(0)
        device.gate.set()
        assert (await patient).results == [198]
        await asyncio.gather(plug, *waiting)
        assert nothing_is_held(batcher)


async def test_dead_device_thread_fails_every_request() -> None:
    class Dying:
        def batch_done(self, *facts: object) -> None:
            raise RuntimeError("a defect")

    batcher: Batcher[int, int] = Batcher(
        lambda key, payloads: payloads, lambda key: LIMITS, BatchingSettings(max_waiting_tokens=16), Dying()
    )
    batcher.start()
    calls = [asyncio.create_task(batcher.submit(work(n, n), wait_for_room=True)) for n in range(5)]
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert [o.kind for o in outcomes if isinstance(o, TorchlessError)] == [ErrorKind.GPU_UNAVAILABLE] * 5
    with pytest.raises(TorchlessError, match="must be restarted"):
        await batcher.submit(work(1))
    await batcher.stop()


async def test_callers_of_a_failed_batch_get_separate_exceptions() -> None:
    device = Device()
    async with running(device) as batcher:
        device.failure = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "gone")
        plug = await plugged(device, batcher)
        each = [asyncio.create_task(batcher.submit(work(n))) for n in (1, 2)]
        await asyncio.sleep(0)
        device.gate.set()
        outcomes = await asyncio.gather(plug, *each, return_exceptions=True)
        assert len({id(o) for o in outcomes}) == 3
