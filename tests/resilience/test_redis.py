"""Case 9: the second level of the cache dies, comes back, hangs and is slow."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.resilience.case import Case
from tests.resilience.conftest import Scale, StartGateway
from tests.resilience.load import HttpTarget, clients
from tests.resilience.outcomes import Outcome
from tests.resilience.processes import Redis, StubBento
from tests.resilience.proxy import Proxy
from tests.resilience.texts import KnownTexts
from tests.resilience.traffic import addresses

TIMEOUT_S = 0.05
MARGIN_S = 0.1
"""Time past a promise that a busy machine is given, in seconds."""
TEXTS = 60


def cache(url: str, **more: Any) -> dict[str, Any]:
    """Settings of a cache that has Redis alone, so that every hit is one of Redis."""
    redis = {"redis_url": url, "redis_timeout_s": TIMEOUT_S, "redis_pause_s": 0.3}
    return {"memory_mib": 0, "warm_mib": 0, **redis, **more}


@pytest.mark.case("9. Redis killed, restarted, frozen")
async def test_redis_dies_and_hangs(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway, redis: Redis
) -> None:
    front = await gateway(addresses(trio), cache=cache(redis.url))
    texts = KnownTexts.of_stub(TEXTS)
    marks = []
    async with clients(HttpTarget(front.port), texts, case.tally, scale.clients // 2, pause_s=0.05):
        await asyncio.sleep(scale.phase_s)
        marks.append(time.monotonic())  # warm
        await asyncio.sleep(scale.phase_s)
        marks.append(time.monotonic())
        redis.kill()
        await asyncio.sleep(scale.phase_s)
        marks.append(time.monotonic())
        await redis.start()
        await asyncio.sleep(2 * scale.phase_s)
        marks.append(time.monotonic())
        redis.freeze()
        await asyncio.sleep(scale.phase_s)
        marks.append(time.monotonic())
        redis.thaw()
        await asyncio.sleep(2 * scale.phase_s)
        marks.append(time.monotonic())
    warm, dead, back, frozen, thawed = (case.tally.between(start, end) for start, end in itertools.pairwise(marks))
    hits = [sum(record.cached for record in phase.records) / phase.sent for phase in (warm, dead, back, frozen, thawed)]
    told = ("warm", "killed", "back", "frozen", "thawed")
    case.figure("hits: " + ", ".join(f"{name} {share:.0%}" for name, share in zip(told, hits, strict=True)))
    case.figure(f"p50 ms: warm {warm.seconds(0.5) * 1000:.1f}, killed {dead.seconds(0.5) * 1000:.1f}")
    case.figure(f"frozen {frozen.seconds(0.5) * 1000:.1f} (p99 {frozen.seconds(0.99) * 1000:.1f})")
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    assert hits[0] > 0.9
    assert hits[1] == 0
    assert hits[2] > 0
    assert hits[4] > 0
    # At most its timeout: what is past that is the bento's time.
    assert frozen.seconds(0.5) < dead.seconds(0.5) + TIMEOUT_S + MARGIN_S


@pytest.mark.case("9. Redis slower than its timeout")
async def test_redis_is_slow(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway, redis: Redis
) -> None:
    texts = KnownTexts.of_stub(TEXTS)
    async with Proxy(redis.port) as proxy:
        front = await gateway(addresses(trio), cache=cache(f"redis://{proxy.address}/0"))
        async with clients(HttpTarget(front.port), texts, case.tally, scale.clients // 2, pause_s=0.05):
            await asyncio.sleep(scale.phase_s)
            slow_at = time.monotonic()
            proxy.latency_s = 4 * TIMEOUT_S
            await asyncio.sleep(2 * scale.phase_s)
            mended_at = time.monotonic()
            proxy.latency_s = 0.0
            await asyncio.sleep(2 * scale.phase_s)
    slow, mended = case.tally.between(slow_at, mended_at), case.tally.between(mended_at)
    case.figure(f"p50 {slow.seconds(0.5) * 1000:.1f} ms, p99 {slow.seconds(0.99) * 1000:.1f} ms while it is slow")
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    assert any(record.cached for record in case.tally.between(0, slow_at).records)
    assert any(record.cached for record in mended.records)
    assert slow.seconds(0.5) < TIMEOUT_S + MARGIN_S


@pytest.mark.case("9. Redis away while the gateway starts")
async def test_redis_comes_later(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway, redis: Redis
) -> None:
    redis.kill()
    front = await gateway(addresses(trio), cache=cache(redis.url))
    texts = KnownTexts.of_stub(TEXTS)
    async with clients(HttpTarget(front.port), texts, case.tally, scale.clients // 2, pause_s=0.05):
        await asyncio.sleep(scale.phase_s)
        await redis.start()
        there_at = time.monotonic()
        await asyncio.sleep(2 * scale.phase_s)
    hits = [record for record in case.tally.records if record.cached]
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    assert hits
    assert min(record.sent_at for record in hits) >= there_at - 1.0
    case.figure(f"the first hit {min(record.sent_at for record in hits) - there_at:.2f} s after it serves")
