"""Case 11: callers disconnect a thousand times, and nothing of them stays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from tests.resilience.case import Case
from tests.resilience.conftest import Scale, StartGateway
from tests.resilience.load import GrpcTarget, HttpTarget, clients
from tests.resilience.outcomes import Outcome
from tests.resilience.processes import Gateway, StubBento
from tests.resilience.stub.faults import Faults
from tests.resilience.texts import FreshTexts
from tests.resilience.traffic import addresses
from tests.waiting import until
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.settings import ClientSettings

AT_ONCE = 20
PERMITS = 32
"""Requests to embed that the gateway works on at once in this case, half of all: fewer than callers that disconnect."""
LONGEST_S = 0.05
GROWTH_MIB = 8.0
DESCRIPTORS = 10


@pytest.mark.case("11. callers hang up 1,000 times over HTTP")
async def test_callers_of_the_gateway_disconnect(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    limits = {"concurrent_requests": 2 * PERMITS, "max_deadline_s": 5.0, "deadline_s": 5.0}
    front = await gateway(addresses(trio), limits=limits)
    target = HttpTarget(front.port)
    await _hang_up(target, scale.hang_ups // 3, "warm")
    idle = await _until_idle(front, trio)
    before = [(each.memory_mib(), each.descriptors()) for each in (front, *trio)]
    cancelled_before = await _cancelled(trio)
    for bento in trio:
        bento.set(Faults(slow=4))
    await _hang_up(target, scale.hang_ups, "gone")
    for bento in trio:
        bento.set()
    after_idle = await _until_idle(front, trio)
    cancelled = await _cancelled(trio) - cancelled_before
    after = [(each.memory_mib(), each.descriptors()) for each in (front, *trio)]
    async with clients(target, FreshTexts("after"), case.tally, PERMITS - 2):
        await asyncio.sleep(scale.phase_s)
    memory = [now - then for (now, _), (then, _) in zip(after, before, strict=True)]
    descriptors = [now - then for (_, now), (_, then) in zip(after, before, strict=True)]
    case.figure(f"{scale.hang_ups} hung up, {cancelled:.0f} of them while a bento worked")
    case.figure(f"memory {memory[0]:+.1f} MiB (bentos {max(memory[1:]):+.1f}), descriptors {descriptors[0]:+d}")
    assert cancelled > scale.hang_ups / 20, "hanging up did not reach the bentos"
    assert after_idle == idle
    assert max(memory) < GROWTH_MIB
    assert max(descriptors) <= DESCRIPTORS
    # Every permit was released; otherwise not all of as many clients as permits would get in.
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)


@pytest.mark.case("11. callers hang up 1,000 times over gRPC")
async def test_callers_of_the_client_cancel(case: Case, scale: Scale, trio: Sequence[StubBento]) -> None:
    chance = random.Random(11)
    settings = ClientSettings(address=",".join(addresses(trio)))
    tasks = len(asyncio.all_tasks())
    async with EmbeddingClient(settings) as client:
        await asyncio.gather(*(client.embed([f"warm {number}"]) for number in range(AT_ONCE)))
        following = len(asyncio.all_tasks())
        cancelled_before = await _cancelled(trio)
        for _ in range(scale.hang_ups // AT_ONCE):
            calls = [asyncio.create_task(client.embed([f"gone {number}"])) for number in range(AT_ONCE)]
            await asyncio.sleep(chance.uniform(0, LONGEST_S / 5))
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: not any(state.calls_in_flight for state in client.states()), "the client has no calls")
        await until(lambda: len(asyncio.all_tasks()) <= following, "the client has no more tasks than before")
        await until(lambda: _bentos_are_idle(trio), "the bentos have no call")
        cancelled = await _cancelled(trio) - cancelled_before
        async with clients(GrpcTarget(client), FreshTexts("after"), case.tally, AT_ONCE):
            await asyncio.sleep(scale.phase_s)
    await until(lambda: len(asyncio.all_tasks()) <= tasks, "no tasks are left")
    left = len(asyncio.all_tasks()) - tasks
    case.figure(f"{scale.hang_ups} hung up, {cancelled:.0f} of them while a bento worked; tasks left: {left}")
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    assert cancelled > scale.hang_ups / 20, "hanging up did not reach the bentos"
    assert left <= 0


async def _cancelled(bentos: Sequence[StubBento]) -> float:
    """Calls that the bentos saw cancelled."""
    return sum([await bento.metric("torchless_calls_total", 'outcome="CANCELLED"') for bento in bentos])


async def _hang_up(target: HttpTarget, times: int, prefix: str) -> None:
    """Sends so many requests, and closes each connection before the answer is there, or while it comes."""
    chance = random.Random(prefix)
    at_once = asyncio.Semaphore(AT_ONCE)

    async def once(number: int) -> None:
        async with at_once:
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(target.message(f"{prefix} number {number}"))
            await asyncio.sleep(chance.uniform(0, LONGEST_S))
            writer.transport.abort()

    await asyncio.gather(*(once(number) for number in range(times)))


async def _until_idle(front: Gateway, bentos: Sequence[StubBento]) -> float:
    """Waits until nothing is being worked on; the gateway's requests then, the one that asks among them."""

    async def idle() -> bool:
        calls = await front.metric("torchless_client_in_flight")
        return calls == 0 and await front.metric(_REQUESTS) <= 1 and await _bentos_are_idle(bentos)

    await until(idle, "nothing is being worked on")
    return await front.metric(_REQUESTS)


_REQUESTS = "torchless_gateway_requests_in_flight"


async def _bentos_are_idle(bentos: Sequence[StubBento]) -> bool:
    waiting = [await bento.metric("torchless_waiting_tokens") for bento in bentos]
    embedding = 'method="GenerateEmbeddings"'
    return sum(waiting) == 0 and sum([await b.metric("torchless_calls_in_flight", embedding) for b in bentos]) == 0
