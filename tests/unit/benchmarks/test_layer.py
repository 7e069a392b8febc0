"""The client layer's measurement: the service that answers at once, the ways to call it, and what is made of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from benchmarks.client_layer.instant_service import MODEL, prepared, serve, vectors
from benchmarks.client_layer.load import Caller
from benchmarks.client_layer.measure import ALONE, CROWDED, measure_layer
from benchmarks.client_layer.report import HEAD, cells, section
from benchmarks.client_layer.variants import (
    BARE,
    CLIENT,
    HIT,
    JOINING,
    LIMIT,
    MISS,
    REDIS_HIT,
    REDIS_MISS,
    THREE,
    UnexpectedAnswerError,
    Variant,
    open_variants,
    same,
)
from benchmarks.data.inputs import Request
from benchmarks.load_generator.load import drive
from benchmarks.plan import LayerPlan
from torchless.cli.free_ports import free_port_run
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2 as pb

WITHOUT_REDIS = [BARE, CLIENT, THREE, JOINING, LIMIT, MISS, HIT]


@pytest.fixture
async def addresses() -> AsyncIterator[list[str]]:
    first = free_port_run(3)
    ports = range(first, first + 3)
    service = asyncio.create_task(serve(ports))
    yield [f"127.0.0.1:{port}" for port in ports]
    service.cancel()
    await asyncio.wait({service})


def test_what_the_service_answers_is_a_whole_answer_of_the_contract() -> None:
    answer = pb.GenerateEmbeddingsResponse.FromString(prepared(3))
    found = matrix.from_message(answer.embeddings)
    assert np.array_equal(found, vectors(3))
    assert found.shape == (3, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    assert (answer.model, answer.revision, len(answer.token_counts)) == (MODEL.id, MODEL.revision, 3)


async def test_every_way_brings_the_service_s_vectors(addresses: list[str]) -> None:
    async with AsyncExitStack() as opened:
        ways = await open_variants(addresses, "", opened)
        assert list(ways) == WITHOUT_REDIS
        answers = [await way.answer(Request(["one", "another"])) for way in ways.values()]
        assert same([vectors(2), *answers])
        assert not same([*answers, vectors(2) * 2])


async def test_every_way_stands_load_from_many_connections(addresses: list[str]) -> None:
    async with AsyncExitStack() as opened:
        for way in (await open_variants(addresses, "", opened)).values():
            spans = await drive(way, in_flight=8, warm_up_s=0.0, seconds=0.02)
            assert len(spans) >= 8


async def test_a_hit_that_was_to_be_a_miss_ends_the_run() -> None:
    async def embed(texts: list[str]) -> int:
        return len(texts)

    way = Variant(embed, vectors, str, lambda answer: answer > 1)
    with pytest.raises(UnexpectedAnswerError, match="was to be a miss"):
        await way.send(0, 0)


async def test_an_answer_that_is_there_at_once_does_not_keep_other_lanes_from_sending() -> None:
    async def embed(texts: list[str]) -> int:
        return len(texts)

    spans = await drive(Variant(embed, vectors, str), in_flight=4, warm_up_s=0.0, seconds=0.01)
    assert len(spans) > 4


async def test_the_caller_refuses_a_job_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="no such job"):
        await Caller().answer({"do": "nothing"})


def test_a_measurement_has_every_way_under_both_loads_in_every_round(tmp_path: Path) -> None:
    told: list[str] = []
    found = measure_layer(LayerPlan(rounds=2, seconds=0.02, warm_up_s=0.0), tmp_path, told.append)
    assert told == ["client layer: round 1 of 2", "client layer: round 2 of 2"]
    assert found.ways == WITHOUT_REDIS + ([REDIS_MISS, REDIS_HIT] if found.has_redis else [])
    assert len(found.samples) == len(found.cpu_us) == 2 * 2 * len(found.ways)
    # Every other round goes the other way round.
    assert [sample.contender for sample in found.samples[-len(found.ways) :]] == list(reversed(found.ways))
    for load in (ALONE, CROWDED):
        of_client = [
            sample.requests.p95_ms for sample in found.samples if (sample.contender, sample.case) == (CLIENT, load)
        ]
        assert found.row(CLIENT, load).p95_ms.median == median(of_client)
        assert found.row(BARE, load).added_p95_ms.median == 0
    lines = list(cells(found))
    assert [line[0] for line in lines] == found.ways
    assert {len(line) for line in lines} == {len(HEAD)}
    assert ("no `redis-server`" in section(found)) != found.has_redis
