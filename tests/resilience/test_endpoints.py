"""Cases 1 to 6: endpoints that die, leave, freeze, slow down and lose their device."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.resilience.case import Case
from tests.resilience.conftest import TEXT_MS, Scale, StartGateway
from tests.resilience.load import HttpTarget, clients
from tests.resilience.outcomes import Outcome
from tests.resilience.processes import Gateway, Process, StubBento
from tests.resilience.stub.faults import Faults
from tests.resilience.texts import FreshTexts, KnownTexts
from tests.resilience.traffic import Traffic, addresses
from tests.waiting import until
from torchless.cli.log_tail import log_tail
from torchless.contracts.errors import ErrorKind

DEADLINE_S = 5.0
MARGIN_S = 0.5
"""Time past a promise that a busy machine is given, in seconds."""
P99_S = 1.0
"""Bound of the 99th percentile while endpoints come and go, in seconds; tens of milliseconds on a quiet machine."""
QUICK_S = 0.05
"""Time in which a caller gets an error when no endpoint can answer, in seconds."""
CLOSED, OPEN = 0.0, 2.0
BAD = (Outcome.FAILED, Outcome.LOST)


async def breaker(gateway: Gateway, bento: StubBento) -> float:
    """State of the bento's breaker in the gateway."""
    return await gateway.metric("torchless_client_breaker_state", f'endpoint="{bento.address}"')


async def served(bento: StubBento) -> float:
    """Calls that the bento has ended, since it was started."""
    return await bento.metric("torchless_calls_total", 'method="GenerateEmbeddings"')


@pytest.mark.case("1. SIGKILL of one of three under load")
async def test_endpoint_of_three_is_killed(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    embedding: dict[str, Any] = {"address": ",".join(addresses(trio)), "slow_start_s": 1.0}
    front = await gateway(addresses(trio), embedding=embedding)
    victim = trio[1]
    async with Traffic(scale.rate, scale.clients, DEADLINE_S).flowing(case.tally, front.port, embedding):
        await asyncio.sleep(scale.phase_s)
        killed_at = time.monotonic()
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(scale.phase_s)
        await victim.start()
        took = await until(lambda: _has_served(victim, 5), "it gets calls again")
    during = case.tally.between(killed_at, killed_at + 1.0)
    case.figure(f"p99 in the second after {during.seconds(0.99) * 1000:.0f} ms; calls again {took:.1f} s after start")
    case.none(*BAD, Outcome.REFUSED)
    assert case.tally.seconds(0.99) < P99_S


async def _has_served(bento: StubBento, calls: int) -> bool:
    return await served(bento) >= calls


@pytest.mark.case("2. SIGTERM, rolling restart of all")
async def test_all_endpoints_are_restarted_one_by_one(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    embedding: dict[str, Any] = {"address": ",".join(addresses(trio)), "slow_start_s": 1.0}
    front = await gateway(addresses(trio), embedding=embedding)
    async with Traffic(scale.rate, scale.clients, DEADLINE_S).flowing(case.tally, front.port, embedding):
        times: list[tuple[float, ...]] = []
        for bento in trio:
            began = time.monotonic()
            assert await bento.terminate() == 0, log_tail(bento.log)
            left = time.monotonic()
            await bento.start()
            there = time.monotonic()
            took = await until(partial(_has_served, bento, 3), "it gets calls again")
            times.append((left - began, there - left, took))
        await asyncio.sleep(scale.phase_s)
    stop_s, start_s, took_s = (max(each) for each in zip(*times, strict=True))
    case.figure(f"at most {stop_s:.1f} s to leave, {start_s:.1f} s to start, {took_s:.1f} s until it gets calls again")
    case.none(*BAD, Outcome.REFUSED)
    assert case.tally.seconds(0.99) < P99_S


@pytest.mark.case("3. all down: fast 503, then recovery")
async def test_all_endpoints_go_down_and_come_back(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    open_s = 2.0
    embedding: dict[str, Any] = {
        "address": ",".join(addresses(trio)),
        "breaker": {"open_s": open_s},
        "slow_start_s": 0.0,
    }
    front = await gateway(addresses(trio), embedding=embedding)
    traffic = Traffic(scale.rate, scale.clients, DEADLINE_S, outage=True)
    async with traffic.flowing(case.tally, front.port, embedding):
        await asyncio.sleep(scale.phase_s)
        whole_until = time.monotonic()
        for bento in trio:
            await asyncio.to_thread(bento.kill)
        for bento in trio:
            await until(partial(_is_open, front, bento), "its breaker opens")
        open_at = time.monotonic()
        await asyncio.sleep(max(scale.phase_s, open_s))
        down_until = time.monotonic()
        await asyncio.gather(*(bento.start() for bento in trio))
        back_at = time.monotonic()
        await asyncio.sleep(open_s + scale.phase_s)
    while_open = case.tally.between(open_at, down_until)
    fast_s, slowest_s = (while_open.seconds(quantile, Outcome.REFUSED) for quantile in (0.5, 0.9))
    later = case.tally.where(lambda record: record.sent_at >= back_at and record.outcome is Outcome.ANSWERED)
    recovered_s = min(record.sent_at for record in later.records) - back_at if later.records else float("inf")
    case.figure(f"503 in {fast_s * 1000:.1f} ms (p90 {slowest_s * 1000:.1f})")
    case.figure(f"answers again {max(recovered_s, 0):.2f} s after all serve, probes every {open_s:g} s")
    case.none(*BAD)
    # Requests in flight when the last of the three was killed may be refused.
    before = case.tally.where(lambda record: record.sent_at + record.seconds <= whole_until)
    assert before.count(Outcome.REFUSED) == 0 < before.sent
    assert while_open.count(Outcome.REFUSED) == while_open.sent > 0
    assert slowest_s < QUICK_S
    assert recovered_s <= open_s + MARGIN_S
    settled = case.tally.between(back_at + open_s + MARGIN_S)
    assert settled.count(Outcome.ANSWERED) == settled.sent > 0


async def _is_open(front: Gateway, bento: StubBento) -> bool:
    return await breaker(front, bento) == OPEN


@pytest.mark.case("3. all down: the cache stands in")
async def test_cached_inputs_are_answered_while_all_endpoints_are_down(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    known = KnownTexts.of_stub(40)
    front = await gateway(addresses(trio), embedding={"breaker": {"open_s": 1.0}})
    target = HttpTarget(front.port, refused_with_503=True)
    for number in range(40):
        case.tally.records.append(await target.ask(known.text(number), known))
    for bento in trio:
        await asyncio.to_thread(bento.kill)
    for bento in trio:
        await until(partial(_is_known_to_be_down, front, bento), "the gateway knows that it is down")
    down_at = time.monotonic()
    fresh = FreshTexts("unknown")
    async with (
        clients(HttpTarget(front.port), known, case.tally, 4, pause_s=0.05),
        clients(HttpTarget(front.port, refused_with_503=True), fresh, case.tally, 2, pause_s=0.05),
    ):
        await asyncio.sleep(scale.phase_s)
    down = case.tally.between(down_at)
    case.none(*BAD)
    # Each is one or the other: known texts from the cache, which say so, and the others refused.
    assert down.count(Outcome.DEGRADED) > 0
    assert down.count(Outcome.REFUSED) > 0
    assert down.count(Outcome.DEGRADED) + down.count(Outcome.REFUSED) == down.sent
    assert all(record.cached for record in down.records if record.outcome is Outcome.DEGRADED)
    case.figure(f"from the cache in {down.seconds(0.5, Outcome.DEGRADED) * 1000:.1f} ms")
    await target.close()


async def _is_known_to_be_down(front: Gateway, bento: StubBento) -> bool:
    return await front.metric("torchless_client_endpoint_up", f'endpoint="{bento.address}"') == 0


HANGS_S, FAILURES, OPEN_S = 1.0, 5, 2.0
"""Case 4: how long its callers wait, how many have to in vain, and until how much later one may try again."""


def _soon_tried_again(trio: Sequence[StubBento]) -> dict[str, Any]:
    return {
        "address": ",".join(addresses(trio)),
        "breaker": {"open_s": OPEN_S, "failures": FAILURES},
        "slow_start_s": 0.0,
    }


@pytest.mark.case("4. SIGSTOP of one of three")
async def test_endpoint_accepts_calls_and_never_answers(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    embedding = _soon_tried_again(trio)
    front = await gateway(addresses(trio), embedding=embedding)
    frozen = trio[2]
    async with Traffic(scale.rate, scale.clients, HANGS_S).flowing(case.tally, front.port, embedding):
        await asyncio.sleep(scale.phase_s)
        frozen_at = time.monotonic()
        frozen.freeze()
        # Requests that met it missed their deadline; by then its health or its breaker keeps calls away.
        settled_at = frozen_at + 2 * HANGS_S
        await asyncio.sleep(2 * HANGS_S + max(scale.phase_s, OPEN_S))
        thawed_at = time.monotonic()
        before = await _attempts(front, frozen)
        frozen.thaw()
        took = await until(lambda: _attempted_since(front, frozen, before + 10), "it gets calls again")
    met = case.tally.between(frozen_at, settled_at)
    after = case.tally.between(settled_at, thawed_at)
    case.figure(f"{met.count(Outcome.FAILED)} met their deadline of {HANGS_S:g} s, {after.count(Outcome.FAILED)} later")
    case.figure(f"p99 after that {after.seconds(0.99) * 1000:.0f} ms; calls again {took:.1f} s after SIGCONT")
    case.none(Outcome.LOST, Outcome.REFUSED)
    # It answers no caller, and a call past its deadline has no time left for another endpoint.
    assert set(case.tally.reasons(Outcome.FAILED)) <= {"504 timeout", "gRPC DEADLINE"}
    assert case.tally.between(0, frozen_at - HANGS_S).count(Outcome.FAILED) == 0
    # Two callers' breakers, and what was on its way as each opened: at most what two of them have in flight.
    assert met.count(Outcome.FAILED) <= 2 * FAILURES + scale.clients + int(scale.rate * HANGS_S / 3)
    # One probe at a time, in each of the two.
    assert after.count(Outcome.FAILED) <= 2 * (1 + int((thawed_at - settled_at) / OPEN_S))
    assert max(record.seconds for record in case.tally.records) < HANGS_S + MARGIN_S
    assert case.tally.between(thawed_at + HANGS_S).count(Outcome.FAILED) == 0


@pytest.mark.case("4. one of three works for ever and says SERVING")
async def test_endpoint_reports_serving_and_never_answers(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    embedding = _soon_tried_again(trio)
    front = await gateway(addresses(trio), embedding=embedding)
    stuck = trio[2]
    async with Traffic(scale.rate, scale.clients, HANGS_S).flowing(case.tally, front.port, embedding):
        await asyncio.sleep(scale.phase_s)
        stuck_at = time.monotonic()
        stuck.set(Faults(slow=3 * HANGS_S / (TEXT_MS / 1000)))
        settled_at = stuck_at + 2 * HANGS_S
        # By then all calls that were sent before `settled_at` have ended.
        missed_before = asyncio.create_task(_missed(front, stuck, at=settled_at + HANGS_S))
        took = await until(partial(_is_open, front, stuck), "its breaker opens")
        await asyncio.sleep(2 * HANGS_S + scale.phase_s)
        missed = await _missed(front, stuck) - await missed_before
        stuck.set()
        mended_at = time.monotonic()
        before = await _attempts(front, stuck)
        await until(lambda: _attempted_since(front, stuck, before + 10), "it gets calls again")
        again_at = time.monotonic()
        await asyncio.sleep(scale.phase_s)
    met, after = case.tally.between(stuck_at, settled_at), case.tally.between(settled_at, mended_at)
    case.figure(f"breaker open after {took:.1f} s; {met.count(Outcome.FAILED)} met their deadline of {HANGS_S:g} s")
    case.figure(
        f"{after.count(Outcome.FAILED)} in {missed:.0f} calls later; p99 after that {after.seconds(0.99) * 1000:.0f} ms"
    )
    case.none(Outcome.LOST, Outcome.REFUSED)
    assert set(case.tally.reasons(Outcome.FAILED)) <= {"504 timeout", "gRPC DEADLINE"}
    assert case.tally.between(0, stuck_at - HANGS_S).count(Outcome.FAILED) == 0
    assert met.count(Outcome.FAILED) <= 2 * FAILURES + scale.clients + int(scale.rate * HANGS_S / 3)
    # Balancing leaves it out but for a call now and then, so it may take a while until five have failed in a row.
    assert missed <= 2 * (FAILURES + 1 + int((mended_at - settled_at) / OPEN_S))
    # Joining puts requests that arrive together into one call: rarely more than one here, unless the machine stalls.
    assert after.count(Outcome.FAILED) <= missed * scale.clients
    assert case.tally.between(again_at + HANGS_S).count(Outcome.FAILED) == 0


async def _missed(front: Gateway, bento: StubBento, *, at: float = 0.0) -> float:
    """Calls at the bento that missed their deadline, counted at that time, as `time.monotonic()`.

    Both callers' count: the gateway's, and that of the typed client in this process.
    """
    await asyncio.sleep(at - time.monotonic())
    labels = {"capability": "embedding", "endpoint": bento.address, "outcome": ErrorKind.DEADLINE.value}
    here = REGISTRY.get_sample_value("torchless_client_attempts_total", labels) or 0.0
    selector = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return here + await front.metric("torchless_client_attempts_total", selector)


async def _attempts(front: Gateway, bento: StubBento) -> float:
    return await front.metric("torchless_client_attempts_total", f'endpoint="{bento.address}"')


async def _attempted_since(front: Gateway, bento: StubBento, number: float) -> bool:
    return await _attempts(front, bento) >= number


@pytest.mark.case("5. one of three is 20 times as slow")
async def test_endpoint_is_slow(case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway) -> None:
    embedding: dict[str, Any] = {"address": ",".join(addresses(trio)), "slow_start_s": 0.0}
    front = await gateway(addresses(trio), embedding=embedding)
    slow, factor = trio[0], 20.0
    async with Traffic(scale.rate, scale.clients, DEADLINE_S).flowing(case.tally, front.port, embedding):
        await asyncio.sleep(scale.phase_s)
        slow_at = time.monotonic()
        slow.set(Faults(slow=factor))
        await asyncio.sleep(scale.phase_s)
        seen_at = time.monotonic()
        calls_then = [await served(bento) for bento in trio]
        await asyncio.sleep(2 * scale.phase_s)
        calls_now = [await served(bento) for bento in trio]
        mended_at = time.monotonic()
        slow.set()
        await asyncio.sleep(scale.phase_s)
    before, shift = case.tally.between(0, slow_at), case.tally.between(slow_at, seen_at)
    after = case.tally.between(seen_at, mended_at)
    shares = [now - then for now, then in zip(calls_now, calls_then, strict=True)]
    share = shares[0] / sum(shares)
    p95 = "p95 {:.0f} ms before, {:.0f} as it slows, {:.0f} after; {:.1%} of calls go there"
    case.figure(p95.format(*(each.seconds(0.95) * 1000 for each in (before, shift, after)), share))
    case.none(*BAD, Outcome.REFUSED)
    # Fewer than one in twenty wait for it, so that the 95th percentile is that of the others.
    assert share < 0.05
    windows = [case.tally.between(at, at + scale.phase_s / 2) for at in (seen_at, seen_at + scale.phase_s)]
    assert min(window.seconds(0.95) for window in windows) < TEXT_MS / 1000 * factor / 2


@pytest.mark.case("6. one of three loses its GPU")
async def test_endpoint_loses_its_device(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    embedding: dict[str, Any] = {"address": ",".join(addresses(trio)), "slow_start_s": 0.0}
    front = await gateway(addresses(trio), embedding=embedding)
    lost = trio[1]
    async with Traffic(scale.rate, scale.clients, DEADLINE_S, outage=True).flowing(case.tally, front.port, embedding):
        await asyncio.sleep(scale.phase_s)
        lost_at = time.monotonic()
        lost.set(Faults(failure=ErrorKind.GPU_UNAVAILABLE))
        await until(lambda: _said_no(lost), "it says NOT_SERVING")
        heard_at = time.monotonic()
        await asyncio.sleep(MARGIN_S)
        attempts = await _attempts(front, lost)
        await asyncio.sleep(scale.phase_s)
        states = [await breaker(front, bento) for bento in trio]
        attempts_later = await _attempts(front, lost)
    refused = case.tally.where(lambda record: record.outcome is Outcome.REFUSED)
    case.figure(f"{refused.sent} refused, the others moved on; p99 {_p99_ms(case, lost_at)} ms; breakers closed")
    case.none(*BAD)
    assert set(refused.reasons(Outcome.REFUSED)) <= {"503 gpu_unavailable", "gRPC GPU_UNAVAILABLE"}
    assert all(lost_at - DEADLINE_S <= record.sent_at <= heard_at + MARGIN_S for record in refused.records)
    assert states == [CLOSED] * 3
    assert attempts_later == attempts, "it gets calls after it has said that it serves none"


async def _said_no(bento: StubBento) -> bool:
    return not await bento.answers()


def _p99_ms(case: Case, since: float) -> str:
    return f"{case.tally.between(since).seconds(0.99) * 1000:.0f}"


@pytest.mark.case("6. one of three says SERVING without its GPU")
async def test_endpoint_reports_serving_without_its_device(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway, faithless: StubBento
) -> None:
    bentos = [trio[0], trio[2], faithless]
    embedding: dict[str, Any] = {"address": ",".join(addresses(bentos)), "slow_start_s": 0.0}
    front = await gateway(addresses(bentos), embedding=embedding)
    async with Traffic(scale.rate, scale.clients, DEADLINE_S, outage=True).flowing(case.tally, front.port, embedding):
        await asyncio.sleep(scale.phase_s)
        lost_at = time.monotonic()
        faithless.set(Faults(failure=ErrorKind.GPU_UNAVAILABLE))
        await asyncio.sleep(scale.phase_s)
        states = [await breaker(front, bento) for bento in bentos]
        met = await front.metric("torchless_client_attempts_total", 'outcome="GPU_UNAVAILABLE"')
        faithless.set()
        mended_at = time.monotonic()
        await asyncio.sleep(scale.phase_s)
    case.figure(f"{case.tally.count(Outcome.REFUSED)} refused, {met:.0f} moved on or were; breakers closed")
    case.none(*BAD)
    assert met > 0, "no call met it"
    assert set(case.tally.reasons(Outcome.REFUSED)) <= {"503 gpu_unavailable", "gRPC GPU_UNAVAILABLE"}
    assert states == [CLOSED] * 3
    assert case.tally.between(lost_at, mended_at).count(Outcome.ANSWERED) > 0
    assert case.tally.between(mended_at + MARGIN_S).count(Outcome.REFUSED) == 0


@pytest.mark.case("6. the only one is without its GPU")
async def test_only_endpoint_fails_fast(case: Case, scale: Scale, gateway: StartGateway, faithless: StubBento) -> None:
    faithless.set(Faults(failure=ErrorKind.GPU_UNAVAILABLE))
    front = await gateway([faithless.address])
    target = HttpTarget(front.port, DEADLINE_S, refused_with_503=True)
    async with clients(target, FreshTexts(), case.tally, 2, pause_s=0.02):
        await asyncio.sleep(scale.phase_s)
    attempts = await front.metric("torchless_client_attempts_total", 'outcome="GPU_UNAVAILABLE"')
    fast_s = case.tally.seconds(0.5, Outcome.REFUSED)
    case.figure(f"503 in {fast_s * 1000:.1f} ms, one attempt each")
    assert case.tally.count(Outcome.REFUSED) == case.tally.sent > 10
    assert set(case.tally.reasons(Outcome.REFUSED)) == {"503 gpu_unavailable"}
    assert attempts == case.tally.sent
    assert await breaker(front, faithless) == CLOSED
    assert fast_s < QUICK_S


@pytest.fixture
async def faithless(tmp_path: Path, ended: Callable[[Process], None]) -> StubBento:
    """A stub that goes on saying SERVING whatever its device does."""
    stub = StubBento("faithless", tmp_path, text_ms=TEXT_MS, LOST_DEVICE_IS_FINAL="false")
    ended(stub)
    await stub.start()
    return stub


@pytest.mark.full
@pytest.mark.case("1. random kills and restarts")
async def test_endpoints_are_killed_at_random(
    case: Case, scale: Scale, trio: Sequence[StubBento], gateway: StartGateway
) -> None:
    chance = random.Random(7)
    embedding: dict[str, Any] = {"address": ",".join(addresses(trio)), "breaker": {"open_s": 2.0}, "slow_start_s": 1.0}
    front = await gateway(addresses(trio), embedding=embedding)
    async with Traffic(scale.rate, scale.clients, DEADLINE_S).flowing(case.tally, front.port, embedding):
        for _ in range(8):
            victim = chance.choice(list(trio))
            await asyncio.to_thread(victim.kill)
            await asyncio.sleep(chance.uniform(0.0, 2.0))
            await victim.start()
            await until(partial(_has_served, victim, 1), "it gets calls again")
    case.none(*BAD, Outcome.REFUSED)
    assert case.tally.seconds(0.99) < P99_S
