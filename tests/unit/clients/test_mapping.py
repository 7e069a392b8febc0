"""The mapping between dataclasses and messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pytest

from torchless.clients.mapping import build, build_at, reader
from torchless.contracts.embedding.v1 import embedding_pb2
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.gpu.v1 import gpu_pb2
from torchless.contracts.reranking.v1 import reranking_pb2
from torchless.contracts.types.v1 import types_pb2

HALF = "\ud800"


class State(StrEnum):
    OTHER = "other"
    ACTIVE = "active"


@dataclass(frozen=True)
class Device:
    uuid: str
    lost: bool


@dataclass(frozen=True)
class Lease:
    id: str
    devices: tuple[Device, ...]
    state: State
    pid: int | None


@dataclass(frozen=True)
class Ids:
    ids: list[int]


@dataclass(frozen=True)
class Stray:
    id: str
    colour: str


def test_reader_maps_nested_repeated_optional_and_enum_fields() -> None:
    read = reader(gpu_pb2.Allocation, Lease)
    devices = [gpu_pb2.AllocatedDevice(uuid="a"), gpu_pb2.AllocatedDevice(uuid="b", lost=True)]
    message = gpu_pb2.Allocation(id="1", devices=devices, state=gpu_pb2.ALLOCATION_STATE_ACTIVE, pid=0)
    assert read(message) == Lease("1", (Device("a", False), Device("b", True)), State.ACTIVE, 0)
    assert read(gpu_pb2.Allocation()) == Lease("", (), State.OTHER, None)


@pytest.mark.parametrize("number", [gpu_pb2.ALLOCATION_STATE_LOST, 77])
def test_reader_takes_the_first_member_for_enum_values_without_one(number: int) -> None:
    message = gpu_pb2.Allocation(state=gpu_pb2.AllocationState.ValueType(number))
    assert reader(gpu_pb2.Allocation, Lease)(message).state is State.OTHER


def test_reader_makes_lists_of_repeated_numbers() -> None:
    assert reader(types_pb2.TokenIds, Ids)(types_pb2.TokenIds(ids=[3, 1])) == Ids([3, 1])


def test_reader_refuses_a_field_that_the_message_does_not_have() -> None:
    with pytest.raises(TypeError, match=r"torchless\.gpu\.v1\.Allocation has no field colour, which Stray has"):
        reader(gpu_pb2.Allocation, Stray)


def test_build_makes_the_message() -> None:
    built = build(embedding_pb2.CountTokensRequest, model="m", texts=["a", "b"])
    assert built == embedding_pb2.CountTokensRequest(model="m", texts=["a", "b"])


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"model": HALF}, "model: must be valid Unicode; it contains half of a surrogate pair"),
        ({"texts": ["a", HALF]}, "texts[1]: must be valid Unicode; it contains half of a surrogate pair"),
        ({"dimensions": -1}, "dimensions: must be a whole number from 0 to 4294967295"),
        ({"dimensions": 2**32}, "dimensions: must be a whole number from 0 to 4294967295"),
    ],
)
def test_build_names_the_field_that_cannot_carry_its_value(values: dict[str, object], refusal: str) -> None:
    with pytest.raises(TorchlessError) as caught:
        build(embedding_pb2.GenerateEmbeddingsRequest, normalize=True, **values)  # type: ignore[arg-type]
    assert (caught.value.kind, caught.value.message) == (ErrorKind.INVALID_INPUT, refusal)


def test_build_at_names_the_field_within_its_parent() -> None:
    with pytest.raises(TorchlessError) as caught:
        build_at(("queries", 2), reranking_pb2.RerankQuery, query="q", documents=["a", HALF])
    assert caught.value.violations[0].path == ("queries", 2, "documents", 1)


def test_build_leaves_errors_of_type_to_the_programmer() -> None:
    with pytest.raises(TypeError):
        build(embedding_pb2.GenerateEmbeddingsRequest, dimensions="many")  # type: ignore[arg-type]
