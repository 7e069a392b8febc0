"""What one capability may hold of a worker's places and of its room for bodies, and what is left to the others."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from gateway.http.admission import Admission
from gateway.http.body_limit import BodyLimit
from gateway.http.bulkheads import Bulkheads, Compartment
from gateway.http.exceptions import NoRoomForBodyError
from gateway.settings import GatewaySettings
from tests.unit.gateway.bodies import MIB, read
from torchless.contracts.errors import ErrorKind, TorchlessError

COMPARTMENTS: tuple[Compartment, ...] = ("embedding", "reranking", "gpu", "models")


def taken(room: Bulkheads, compartment: Compartment, most: int) -> int:
    """Pieces of one that it got until it was refused."""
    return next((number for number in range(most) if not room.take(compartment, 1)), most)


def test_each_that_takes_all_it_can_leaves_as_much_as_it_holds() -> None:
    room = Bulkheads(1024)
    assert [taken(room, each, 1024) for each in COMPARTMENTS] == [512, 256, 128, 64]
    assert not room.take("embedding", 1)
    room.give_back("embedding", 512)
    assert taken(room, "gpu", 1024) == 224, "with the 128 before, half of what the two others leave"


def test_the_first_piece_may_be_all_that_is_free() -> None:
    room = Bulkheads(1)
    assert room.take("embedding", 1)
    assert not room.take("embedding", 1)
    assert not room.take("gpu", 1)
    room.give_back("embedding", 1)
    assert room.take("gpu", 1)


def test_what_the_limits_of_all_capabilities_let_through_at_once_leaves_places() -> None:
    settings = GatewaySettings()
    room = Bulkheads(settings.limits.concurrent_requests)
    clients = {"embedding": settings.embedding, "reranking": settings.reranking, "gpu": settings.gpu}
    for each, client in clients.items():
        assert client.concurrency.enabled
        assert taken(room, each, client.concurrency.max) >= min(client.concurrency.max, 256)  # type: ignore[arg-type]
    assert room.take("models", 1)


def test_places_of_one_capability_are_no_more_than_it_leaves() -> None:
    admission = Admission(8)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(admission.place("reranking"))
        with pytest.raises(TorchlessError) as refused, admission.place("reranking"):
            pass
        assert (refused.value.kind, refused.value.retry_after_s) == (ErrorKind.OVERLOADED, 1.0)
        with admission.place("embedding"), admission.place("embedding"), admission.place("gpu"):
            pass
    with admission.place("reranking"):
        pass


async def test_bodies_of_one_capability_leave_room_for_the_largest_of_another() -> None:
    limit = BodyLimit(2, 8)
    with ExitStack() as held:
        for _ in range(2):
            await read(held.enter_context(limit.room("reranking")), 2 * MIB)
        with pytest.raises(NoRoomForBodyError), limit.room("reranking") as refused:
            await read(refused, 1)
        for _ in range(2):
            with limit.room("embedding") as reader:
                assert len(await read(reader, 2 * MIB)) == 2 * MIB
        await read(held.enter_context(limit.room("embedding")), 2 * MIB)
        with limit.room("gpu") as third:
            assert len(await read(third, 2 * MIB)) == 2 * MIB
    with limit.room("reranking") as reader:
        assert len(await read(reader, 2 * MIB)) == 2 * MIB


async def test_one_body_may_take_the_whole_room_and_ends_though_nothing_is_left() -> None:
    limit = BodyLimit(1, 1)
    with limit.room("embedding") as reader:
        assert len(await read(reader, MIB)) == MIB
    with limit.room("gpu") as first, limit.room("embedding") as second:
        await read(first, MIB // 2)
        assert len(await read(second, MIB // 2)) == MIB // 2


async def test_a_body_that_is_refused_frees_what_had_arrived() -> None:
    limit = BodyLimit(1, 1)
    with limit.room("gpu") as held:
        await read(held, MIB // 2)
        with pytest.raises(NoRoomForBodyError), limit.room("embedding") as refused:
            await read(refused, MIB)
        with limit.room("embedding") as reader:
            await read(reader, MIB // 2)
