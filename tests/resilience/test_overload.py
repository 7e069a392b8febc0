"""Case 7: four times as much as the bentos can do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.resilience.case import Case
from tests.resilience.conftest import Scale, StartGateway
from tests.resilience.load import HttpTarget, arrivals, clients
from tests.resilience.outcomes import Outcome, Tally
from tests.resilience.processes import Process, StubBento
from tests.resilience.texts import FreshTexts
from tests.resilience.traffic import addresses

TEXT_MS = 40.0
WAITING = 8
"""Requests that each bento takes before it refuses."""
GROWTH_MIB = 48.0
QUICK_S = 0.05
SETTLING_S = 1.0


@pytest.fixture
async def small(tmp_path: Path, ended: Callable[[Process], None]) -> Sequence[StubBento]:
    """Two stubs that do 25 texts a second each, with short queues."""
    settings = {"BATCHING__MAX_WAITING_REQUESTS": str(WAITING)}
    stubs = [StubBento(name, tmp_path, text_ms=TEXT_MS, **settings) for name in ("left", "right")]
    for stub in stubs:
        ended(stub)
    await asyncio.gather(*(stub.start() for stub in stubs))
    return stubs


@pytest.mark.case("7. overload at 4 times the capacity")
async def test_load_of_four_times_the_capacity(
    case: Case, scale: Scale, small: Sequence[StubBento], gateway: StartGateway
) -> None:
    front = await gateway(addresses(small))
    lasts_s = SETTLING_S + 2 * scale.phase_s
    texts = FreshTexts("overload")

    began = time.monotonic()
    async with clients(HttpTarget(front.port), texts, case.tally, WAITING):
        await asyncio.sleep(lasts_s)
    capacity = _goodput(case.tally, began + SETTLING_S, began + lasts_s)

    before = [process.memory_mib() for process in (front, *small)]
    began = time.monotonic()
    async with arrivals(HttpTarget(front.port), FreshTexts("flood"), case.tally, rate=4 * capacity):
        await asyncio.sleep(lasts_s)
    ended_at = began + lasts_s
    goodput = _goodput(case.tally, began + SETTLING_S, ended_at)
    growth = [process.memory_mib() - then for process, then in zip((front, *small), before, strict=True)]
    flood = case.tally.between(began, ended_at)
    quick_s = flood.seconds(0.5, Outcome.REFUSED)

    calm_from = time.monotonic()
    async with arrivals(HttpTarget(front.port), FreshTexts("calm"), case.tally, rate=capacity / 2):
        await asyncio.sleep(SETTLING_S + scale.phase_s)
    calm = case.tally.between(calm_from + SETTLING_S)

    case.figure(f"capacity {capacity:.0f}/s, goodput {goodput:.0f}/s at {flood.sent / lasts_s:.0f}/s")
    case.figure(f"429 in {quick_s * 1000:.1f} ms (p99 {flood.seconds(0.99, Outcome.REFUSED) * 1000:.0f})")
    case.figure(f"memory {max(growth):+.1f} MiB at most; p95 after that {calm.seconds(0.95) * 1000:.0f} ms")
    case.none(Outcome.FAILED, Outcome.LOST)
    assert flood.sent > 3 * capacity * lasts_s, "the load itself did not keep up"
    assert goodput >= 0.8 * capacity
    assert all(reason.startswith("429") for reason in flood.reasons(Outcome.REFUSED))
    assert quick_s < QUICK_S
    assert max(growth) < GROWTH_MIB
    assert calm.count(Outcome.ANSWERED) == calm.sent > 0


def _goodput(tally: Tally, start: float, end: float) -> float:
    """Answers a second in that time."""
    answered = tally.where(lambda record: record.outcome is Outcome.ANSWERED)
    return len([1 for record in answered.records if start <= record.sent_at + record.seconds < end]) / (end - start)
