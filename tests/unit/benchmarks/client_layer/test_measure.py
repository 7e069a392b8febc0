"""The measurement of the client layer: the service that answers at once, the variants, and the results."""

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
from benchmarks.load_generator.drive import drive
from benchmarks.plan import LayerPlan
from torchless.cli.free_ports import free_ports
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2 as pb

WITHOUT_REDIS = [BARE, CLIENT, THREE, JOINING, LIMIT, MISS, HIT]


@pytest.fixture
async def addresses() -> AsyncIterator[list[str]]:
    ports = free_ports(3)
    service = asyncio.create_task(serve(ports))
    yield [f"127.0.0.1:{port}" for port in ports]
    service.cancel()
    await asyncio.wait({service})


def test_the_instant_service_answers_with_a_complete_response() -> None:
    answer = pb.GenerateEmbeddingsResponse.FromString(prepared(3))
    found = matrix.from_message(answer.embeddings)
    assert np.array_equal(found, vectors(3))
    assert found.shape == (3, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    assert (answer.model, answer.revision, len(answer.token_counts)) == (MODEL.id, MODEL.revision, 3)


async def test_every_variant_returns_the_service_s_vectors(addresses: list[str]) -> None:
    async with AsyncExitStack() as opened:
        variants = await open_variants(addresses, "", opened)
        assert list(variants) == WITHOUT_REDIS
        answers = [await variant.answer(Request(["one", "another"])) for variant in variants.values()]
        assert same([vectors(2), *answers])
        assert not same([*answers, vectors(2) * 2])


async def test_every_variant_works_under_load_from_many_connections(addresses: list[str]) -> None:
    async with AsyncExitStack() as opened:
        for variant in (await open_variants(addresses, "", opened)).values():
            spans = await drive(variant, in_flight=8, warm_up_s=0.0, seconds=0.02)
            assert len(spans) >= 8


async def test_a_hit_in_place_of_a_miss_ends_the_run() -> None:
    async def embed(texts: list[str]) -> int:
        return len(texts)

    variant = Variant(embed, vectors, str, lambda answer: answer > 1)
    with pytest.raises(UnexpectedAnswerError, match="a cache hit instead of a miss, or the reverse"):
        await variant.send(0, 0)


async def test_an_instant_answer_lets_other_connections_send() -> None:
    async def embed(texts: list[str]) -> int:
        return len(texts)

    spans = await drive(Variant(embed, vectors, str), in_flight=4, warm_up_s=0.0, seconds=0.01)
    assert len(spans) > 4


async def test_the_caller_refuses_an_unknown_job() -> None:
    with pytest.raises(ValueError, match="no such job"):
        await Caller().answer({"do": "nothing"})


def test_a_measurement_has_every_variant_under_both_loads_in_every_round(tmp_path: Path) -> None:
    announced: list[str] = []
    found = measure_layer(LayerPlan(rounds=2, seconds=0.02, warm_up_s=0.0), tmp_path, announced.append)
    assert announced == ["client layer: round 1 of 2", "client layer: round 2 of 2"]
    assert found.variants == WITHOUT_REDIS + ([REDIS_MISS, REDIS_HIT] if found.has_redis else [])
    assert len(found.samples) == len(found.cpu_us) == 2 * 2 * len(found.variants)
    # Every other round runs in reverse order.
    assert [sample.contender for sample in found.samples[-len(found.variants) :]] == list(reversed(found.variants))
    for load in (ALONE, CROWDED):
        of_client = [
            sample.requests.p95_ms for sample in found.samples if (sample.contender, sample.case) == (CLIENT, load)
        ]
        assert found.row(CLIENT, load).p95_ms.median == median(of_client)
        assert found.row(BARE, load).added_p95_ms.median == 0
    lines = list(cells(found))
    assert [line[0] for line in lines] == found.variants
    assert {len(line) for line in lines} == {len(HEAD)}
    assert ("no `redis-server`" in section(found)) != found.has_redis
