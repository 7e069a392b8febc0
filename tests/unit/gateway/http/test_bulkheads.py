"""Shares of a worker's request slots and body memory: what one bulkhead may hold, and what it leaves to others."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from gateway.http.bodies import BodyLimit
from gateway.http.bulkheads import Admission, SharedCapacity
from gateway.http.exceptions import UnreadBodyError
from gateway.settings import GatewaySettings
from tests.unit.gateway.bodies import MIB, body_of
from torchless.contracts.errors import ErrorKind, TorchlessError

BULKHEADS = ("embedding", "reranking", "gpu", "models")


def taken(capacity: SharedCapacity, bulkhead: str, most: int) -> int:
    """Pieces of one that it got until it was refused."""
    return next((number for number in range(most) if not capacity.take(bulkhead, 1)), most)


def test_a_bulkhead_leaves_as_much_as_it_holds() -> None:
    capacity = SharedCapacity(1024)
    assert [taken(capacity, each, 1024) for each in BULKHEADS] == [512, 256, 128, 64]
    assert not capacity.take("embedding", 1)
    capacity.give_back("embedding", 512)
    assert taken(capacity, "gpu", 1024) == 224, "with the 128 before, half of what the two others leave"


def test_the_first_piece_may_be_all_that_is_free() -> None:
    capacity = SharedCapacity(1)
    assert capacity.take("embedding", 1)
    assert not capacity.take("embedding", 1)
    assert not capacity.take("gpu", 1)
    capacity.give_back("embedding", 1)
    assert capacity.take("gpu", 1)


def test_default_concurrency_limits_of_all_capabilities_leave_free_slots() -> None:
    settings = GatewaySettings()
    capacity = SharedCapacity(settings.limits.concurrent_requests)
    clients = {"embedding": settings.embedding, "reranking": settings.reranking, "gpu": settings.gpu}
    for each, client in clients.items():
        assert client.concurrency.enabled
        assert taken(capacity, each, client.concurrency.max) >= min(client.concurrency.max, 256)
    assert capacity.take("models", 1)


def test_slots_of_one_bulkhead_are_no_more_than_it_leaves() -> None:
    admission = Admission(8)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(admission.slot("reranking"))
        with pytest.raises(TorchlessError) as refused, admission.slot("reranking"):
            pass
        assert (refused.value.kind, refused.value.retry_after_s) == (ErrorKind.OVERLOADED, 1.0)
        with admission.slot("embedding"), admission.slot("embedding"), admission.slot("gpu"):
            pass
    with admission.slot("reranking"):
        pass


async def size_read(limit: BodyLimit, bulkhead: str, size: int) -> int:
    """Bytes that are read of a body of that size."""
    with body_of(limit, bulkhead, size) as body:
        return len(await body.read_all())


async def hold(held: ExitStack, limit: BodyLimit, bulkhead: str, size: int) -> None:
    """Reads a body of that size, and holds it as long as `held`."""
    await held.enter_context(body_of(limit, bulkhead, size)).read_all()


async def test_bodies_of_one_bulkhead_leave_memory_for_the_largest_of_another() -> None:
    limit = BodyLimit(2, 8, 60)
    with ExitStack() as held:
        for _ in range(2):
            await hold(held, limit, "reranking", 2 * MIB)
        with pytest.raises(UnreadBodyError) as refused:
            await size_read(limit, "reranking", 1)
        assert refused.value.kind is ErrorKind.OVERLOADED
        for _ in range(2):
            assert await size_read(limit, "embedding", 2 * MIB) == 2 * MIB
        await hold(held, limit, "embedding", 2 * MIB)
        assert await size_read(limit, "gpu", 2 * MIB) == 2 * MIB
    assert await size_read(limit, "reranking", 2 * MIB) == 2 * MIB


async def test_one_body_may_take_all_memory_and_its_end_needs_none() -> None:
    limit = BodyLimit(1, 1, 60)
    assert await size_read(limit, "embedding", MIB) == MIB
    with ExitStack() as held:
        await hold(held, limit, "gpu", MIB // 2)
        assert await size_read(limit, "embedding", MIB // 2) == MIB // 2


async def test_a_refused_body_frees_what_had_arrived() -> None:
    limit = BodyLimit(1, 1, 60)
    with ExitStack() as held:
        await hold(held, limit, "gpu", MIB // 2)
        with pytest.raises(UnreadBodyError) as refused:
            await size_read(limit, "embedding", MIB)
        assert refused.value.kind is ErrorKind.OVERLOADED
        assert await size_read(limit, "embedding", MIB // 2) == MIB // 2


async def test_a_body_read_in_pieces_holds_one_piece_at_a_time() -> None:
    limit = BodyLimit(4, 1, 60)
    with body_of(limit, "embedding", 4 * MIB) as streamed:
        read = 0
        async for chunk in streamed:
            read += len(chunk)
            assert await size_read(limit, "gpu", MIB // 2) == MIB // 2
    assert (read, streamed.complete) == (4 * MIB, True)


async def test_a_body_read_in_pieces_is_refused_past_its_limit() -> None:
    with body_of(BodyLimit(1, 8, 60), "embedding", 2 * MIB) as streamed:
        with pytest.raises(UnreadBodyError, match="larger than 1 MiB") as refused:
            async for _ in streamed:
                pass
        assert refused.value.kind is ErrorKind.INPUT_TOO_LARGE
        assert not streamed.complete
