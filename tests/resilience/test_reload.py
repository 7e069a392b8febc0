"""Case 10: the gateway's settings changed, broken and mended under load."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from tests.resilience.case import Case
from tests.resilience.conftest import Scale, StartGateway, settings_for
from tests.resilience.outcomes import Outcome
from tests.resilience.processes import Gateway, StubBento
from tests.resilience.traffic import Traffic, addresses
from tests.waiting import until

DEADLINE_S = 5.0
BROKEN = ("embedding: [", "embedding: {address: 'a:1', breaker: {failures: 0}}\n", "unknown: {name: 1}\n")


async def attempts(front: Gateway, bento: StubBento) -> float:
    return await front.metric("torchless_client_attempts_total", f'endpoint="{bento.address}"')


async def refused(front: Gateway) -> bool:
    """Whether what the file holds is not in force."""
    return bool(json.loads(await front.get("/health/ready"))["settings"]["refused"])


@pytest.mark.case("10. settings changed, broken, mended under load")
async def test_settings_change_under_load(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    everything: dict[str, Any] = {"address": ",".join(addresses(trio)), "slow_start_s": 0.0}
    front = await gateway(addresses(trio), embedding=everything)
    third = trio[2]

    async def busy() -> bool:
        return await attempts(front, third) > known

    async def mended() -> bool:
        return not await refused(front)

    async with Traffic(scale.rate, scale.clients, DEADLINE_S).flowing(case.tally, front.port, everything):
        known = 0.0
        await until(busy, "all three get calls")

        front.write(yaml.safe_dump(settings_for(addresses(trio[:2]), embedding={"slow_start_s": 0.0})))
        took = await _until_it_is_quiet(front, third)
        case.figure(f"an endpoint left out after {took:.1f} s")

        for text in BROKEN:
            front.write(text)
            await until(lambda: refused(front), "the file is refused")
            known = await attempts(front, third)
            await asyncio.sleep(scale.phase_s / 2)
            assert await attempts(front, third) == known, "settings that were refused are in force"
            front.write(yaml.safe_dump(settings_for(addresses(trio[:2]))))
            await until(mended, "the mended file is in force")

        changed = settings_for(addresses(trio), embedding={"slow_start_s": 0.0}, limits={"concurrent_requests": 200})
        front.write(yaml.safe_dump(changed))
        took = await until(busy, "the endpoint that is back gets calls")
        case.figure(f"back after {took:.1f} s; {len(BROKEN)} broken files refused")
        await asyncio.sleep(scale.phase_s)
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    assert case.tally.seconds(0.99) < DEADLINE_S


async def _until_it_is_quiet(front: Gateway, bento: StubBento) -> float:
    """Waits until the bento gets no more calls; the time that it took, in seconds."""
    started = time.monotonic()
    quiet_since, number = started, await attempts(front, bento)
    while time.monotonic() - quiet_since < 1.0:
        assert time.monotonic() - started < 20, "the endpoint still gets calls"
        await asyncio.sleep(0.1)
        now = await attempts(front, bento)
        if now != number:
            quiet_since, number = time.monotonic(), now
    return quiet_since - started


@pytest.mark.case("10. settings change all the time")
async def test_settings_change_repeatedly(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    everything: dict[str, Any] = {"address": ",".join(addresses(trio)), "slow_start_s": 0.0}
    front = await gateway(addresses(trio), embedding=everything)
    descriptors = front.descriptors()
    async with Traffic(scale.rate, scale.clients, DEADLINE_S).flowing(case.tally, front.port, everything):
        changes = int(scale.phase_s * 8)
        for number in range(changes):
            kept = [bento for place, bento in enumerate(trio) if place != number % 3]
            limits = {"concurrent_requests": 200 + number}
            front.write(yaml.safe_dump(settings_for(addresses(kept), limits=limits)))
            await asyncio.sleep(0.15)
    case.figure(f"{changes} changes; descriptors {descriptors} before, {front.descriptors()} after")
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    assert not await refused(front)
