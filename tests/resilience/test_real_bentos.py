"""Cases 1 and 2 once more, with the embedding bento itself and MiniLM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.resilience.case import Case
from tests.resilience.conftest import Scale, StartGateway
from tests.resilience.outcomes import Outcome
from tests.resilience.processes import Process, RealBento
from tests.resilience.texts import KnownTexts
from tests.resilience.traffic import Traffic, addresses
from tests.waiting import until
from torchless.clients.embedding import EmbeddingClient

DEADLINE_S = 10.0
TEXTS = [
    f"passage {number} is about the {word} of number {number * 7}" for number in range(10) for word in ("size", "age")
]


@pytest.fixture
async def pair(tmp_path: Path, ended: Callable[[Process], None]) -> Sequence[RealBento]:
    """Two embedding bentos with MiniLM."""
    bentos = [RealBento(name, tmp_path) for name in ("one", "other")]
    for bento in bentos:
        ended(bento)
    await asyncio.gather(*(bento.start() for bento in bentos))
    return bentos


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.case("1. SIGKILL of one of two with MiniLM")
async def test_bento_of_two_is_killed(
    case: Case, scale: Scale, pair: Sequence[RealBento], gateway: StartGateway
) -> None:
    embedding: dict[str, Any] = {"address": ",".join(addresses(pair)), "slow_start_s": 1.0}
    front = await gateway(addresses(pair), embedding=embedding, cache={"enabled": False})
    texts = await _known(pair[0])
    async with Traffic(rate=10, clients=6, deadline_s=DEADLINE_S).flowing(case.tally, front.port, embedding, texts):
        await asyncio.sleep(scale.phase_s)
        await asyncio.to_thread(pair[1].kill)
        await asyncio.sleep(scale.phase_s)
        await pair[1].start()
        await until(lambda: _serves(pair[1]), "it gets calls again")
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    assert case.tally.seconds(0.99) < DEADLINE_S


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.case("2. SIGTERM, rolling restart of two with MiniLM")
async def test_both_real_bentos_are_restarted(
    case: Case, scale: Scale, pair: Sequence[RealBento], gateway: StartGateway
) -> None:
    embedding: dict[str, Any] = {"address": ",".join(addresses(pair)), "slow_start_s": 1.0}
    front = await gateway(addresses(pair), embedding=embedding, cache={"enabled": False})
    texts = await _known(pair[0])
    async with Traffic(rate=10, clients=6, deadline_s=DEADLINE_S).flowing(case.tally, front.port, embedding, texts):
        for bento in pair:
            await bento.restart()
            await until(partial(_serves, bento), "it gets calls again")
        await asyncio.sleep(scale.phase_s)
    case.none(Outcome.FAILED, Outcome.LOST, Outcome.REFUSED)
    assert case.tally.seconds(0.99) < DEADLINE_S


async def _known(bento: RealBento) -> KnownTexts:
    async with EmbeddingClient(bento.address) as client:
        answer = await client.embed(TEXTS)
    return KnownTexts(dict(zip(TEXTS, answer.vectors, strict=True)))


async def _serves(bento: RealBento) -> bool:
    return await bento.metric("torchless_calls_total", 'method="GenerateEmbeddings"') >= 3
