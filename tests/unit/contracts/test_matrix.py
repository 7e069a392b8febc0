"""Vectors on the wire."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from torchless.contracts import matrix
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.types.v1.types_pb2 import Matrix


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 7)])
def test_a_matrix_survives_the_wire_to_the_bit(shape: tuple[int, int]) -> None:
    array = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    got = matrix.from_message(Matrix.FromString(matrix.to_message(array).SerializeToString()))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, array)


def test_bytes_are_little_endian_and_row_major() -> None:
    message = matrix.to_message(np.array([[1, 2], [3, 4]], dtype=np.float32))
    assert message.data == bytes.fromhex("0000803f 00000040 00004040 00008040")


@pytest.mark.parametrize("made", [np.asfortranarray, lambda a: a[:, ::2], lambda a: a.astype(">f4")])
def test_any_layout_is_written_the_same(made: object) -> None:
    array: NDArray[np.float32] = made(np.arange(12, dtype=np.float32).reshape(3, 4))  # type: ignore[operator]
    np.testing.assert_array_equal(matrix.from_message(matrix.to_message(array)), array)


def test_bytes_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(TorchlessError) as caught:
        matrix.from_message(Matrix(rows=2, dimensions=2, data=b"\0" * 15))
    assert caught.value.kind is ErrorKind.INTERNAL
