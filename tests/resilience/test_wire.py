"""Case 8: a wire that resets connections, is slow, and loses."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.resilience.case import Case
from tests.resilience.conftest import Scale, StartGateway
from tests.resilience.outcomes import Outcome
from tests.resilience.processes import StubBento
from tests.resilience.proxy import Proxy
from tests.resilience.traffic import Traffic, addresses

DEADLINE_S = 5.0
RESET_EVERY_S = 0.3


@pytest.mark.case("8. resets, latency and loss on the wire")
async def test_connection_is_bad(case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway) -> None:
    chance = random.Random(8)
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(bento.port, seed=bento.port)) for bento in trio]
        embedding: dict[str, Any] = {"address": ",".join(addresses(proxies)), "slow_start_s": 0.0}
        front = await gateway(addresses(proxies), embedding=embedding)
        traffic = Traffic(scale.rate, scale.clients, DEADLINE_S)
        async with traffic.flowing(case.tally, front.port, embedding):
            marks = [time.monotonic()]
            await asyncio.sleep(scale.phase_s)
            marks.append(time.monotonic())
            while time.monotonic() < marks[-1] + 2 * scale.phase_s:
                chance.choice(proxies).reset_all()
                await asyncio.sleep(RESET_EVERY_S)
            marks.append(time.monotonic())
            for proxy in proxies:
                proxy.latency_s = 0.03
            await asyncio.sleep(scale.phase_s)
            marks.append(time.monotonic())
            for proxy in proxies:
                proxy.loss = 0.03
            await asyncio.sleep(scale.phase_s)
            marks.append(time.monotonic())
        resets = sum(proxy.resets for proxy in proxies)
    phases = [case.tally.between(start, end) for start, end in itertools.pairwise(marks)]
    names = ("whole", "resets", "+30 ms", "+3% loss")
    p95s = (f"{name} {phase.seconds(0.95) * 1000:.0f}" for name, phase in zip(names, phases, strict=True))
    case.figure(f"{resets} resets; p95 in ms: " + ", ".join(p95s))
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    assert resets > 0
    assert case.tally.seconds(0.99) < DEADLINE_S
    # Each way takes 30 ms: it is the proxies that the calls go through.
    assert phases[2].seconds(0.05) >= 0.06
