"""Vectors as JSON, base64 and Cohere's small types."""

from __future__ import annotations

import base64

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gateway.encoding.base64 import base64_rows
from gateway.encoding.json import finite, json_response
from gateway.encoding.quantization import binary, int8, ubinary, uint8
from torchless.contracts.errors import ErrorKind, TorchlessError

Matrix = NDArray[np.float32]
matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)

small_matrices = arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.floats(-1, 1, width=32)
)


def unit_vectors(rows: int, dimensions: int) -> Matrix:
    vectors = np.random.default_rng(7).standard_normal((rows, dimensions)).astype(np.float32)
    unit: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@given(matrices)
def test_json_brings_the_same_float32_back(vectors: Matrix) -> None:
    vectors.setflags(write=False)
    back = np.array(orjson.loads(json_response({"rows": list(vectors)}).body)["rows"], dtype=np.float32)
    assert np.array_equal(back, vectors)


@given(matrices)
def test_base64_is_little_endian_float32(vectors: Matrix) -> None:
    back = [np.frombuffer(base64.b64decode(row, validate=True), dtype="<f4") for row in base64_rows(vectors)]
    assert np.array_equal(np.stack(back).view(np.uint32), vectors.view(np.uint32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_without_a_json_form_are_errors(value: float) -> None:
    with pytest.raises(TorchlessError) as raised:
        finite(np.array([[0.0, value]], dtype=np.float32))
    assert raised.value.kind is ErrorKind.INTERNAL


@pytest.mark.parametrize("dimensions", [64, 384, 1024])
def test_int8_keeps_directions(dimensions: int) -> None:
    vectors = unit_vectors(200, dimensions)
    codes = int8(vectors).astype(np.float32)
    cosines = np.sum(codes * vectors, axis=1) / np.linalg.norm(codes, axis=1)
    assert cosines.min() > 0.9995


def test_codes_by_hand() -> None:
    vectors = np.array([[1.0, 0.0, -1.0, 0.5] + [0.0] * 12], dtype=np.float32)
    assert int8(vectors)[0, :4].tolist() == [127, 0, -127, 64]
    assert uint8(vectors)[0, :4].tolist() == [255, 128, 1, 192]


def test_bits_by_hand() -> None:
    vectors = np.array([[1, -1, 0, 1, -1, -1, -1, 0.1, 1, 1]], dtype=np.float32)
    assert ubinary(vectors).tolist() == [[0b10010001, 0b11000000]]
    assert binary(vectors).tolist() == [[0b10010001 - 128, 0b11000000 - 128]]


@given(small_matrices)
def test_small_types_stay_in_their_range_and_agree(vectors: Matrix) -> None:
    rows, dimensions = vectors.shape
    assert int8(vectors).shape == uint8(vectors).shape == (rows, dimensions)
    assert ubinary(vectors).shape == binary(vectors).shape == (rows, (dimensions + 7) // 8)
    assert np.array_equal(int8(vectors).astype(int) + 128, uint8(vectors).astype(int))
    assert np.array_equal(binary(vectors).astype(int) + 128, ubinary(vectors).astype(int))
    assert np.array_equal(np.unpackbits(ubinary(vectors), axis=1, count=dimensions).astype(bool), vectors > 0)
