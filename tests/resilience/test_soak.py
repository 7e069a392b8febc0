"""Case 12: a long time at 80 percent of what the bentos can do, and nothing grows."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.resilience.case import Case
from tests.resilience.conftest import Scale, StartGateway
from tests.resilience.load import HttpTarget, arrivals
from tests.resilience.outcomes import Outcome
from tests.resilience.processes import Process, StubBento
from tests.resilience.texts import FreshTexts
from tests.resilience.traffic import addresses

TEXT_MS = 25.0
SHARE = 0.8
SAMPLES = 40
GROWTH_MIB = 4.0
GROWTH_SHARE = 0.03
DESCRIPTORS = 5


@pytest.mark.timeout(1200)
@pytest.mark.case("12. soak at 80% load")
async def test_memory_and_connections_do_not_grow(
    case: Case, scale: Scale, gateway: StartGateway, tmp_path: Path, ended: Callable[[Process], None]
) -> None:
    stubs = [StubBento(name, tmp_path, text_ms=TEXT_MS) for name in ("left", "right")]
    for stub in stubs:
        ended(stub)
    await asyncio.gather(*(stub.start() for stub in stubs))
    # BentoML holds something of each request for the longest deadline and five seconds: a short one, so that the
    # time before memory is level is short. The cache is full after some seconds.
    limits = {"max_deadline_s": 5.0, "deadline_s": 5.0}
    # Connections that the load opened at a peak are closed soon, so that their number is that of the moment.
    http = {"keep_alive_s": 1.0}
    front = await gateway(addresses(stubs), limits=limits, http=http, cache={"memory_mib": 0.25, "warm_mib": 0})
    watched = (front, *stubs)
    memory: list[list[float]] = [[] for _ in watched]
    descriptors: list[list[float]] = [[] for _ in watched]
    rate = SHARE * len(stubs) * 1000 / TEXT_MS
    began = time.monotonic()
    async with arrivals(HttpTarget(front.port), FreshTexts("soak"), case.tally, rate):
        for number in range(SAMPLES):
            await asyncio.sleep(max(0.0, began + (number + 1) * scale.soak_s / SAMPLES - time.monotonic()))
            for place, process in enumerate(watched):
                memory[place].append(process.memory_mib())
                descriptors[place].append(process.descriptors())
    names = [process.name for process in watched]
    figures = [f"{name} {_half(of):.1f} -> {_end(of):.1f} MiB" for name, of in zip(names, memory, strict=True)]
    files = [f"{_half(of):.0f} -> {_end(of):.0f}" for of in descriptors]
    case.figure(f"{scale.soak_s:g} s at {rate:.0f}/s; " + ", ".join(figures))
    case.figure("descriptors " + ", ".join(files))
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    for of in memory:
        assert _end(of) - _half(of) < GROWTH_MIB + GROWTH_SHARE * _half(of)
    for of in descriptors:
        assert _end(of) - _half(of) <= DESCRIPTORS


def _half(samples: list[float]) -> float:
    """Level once all that fills up is full: the second quarter of the time before the last half begins."""
    return statistics.median(samples[len(samples) // 4 : len(samples) // 2])


def _end(samples: list[float]) -> float:
    """Level at the end: the last quarter."""
    return statistics.median(samples[3 * len(samples) // 4 :])
