"""Truncation and normalization."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bentos.embedding.vectors import truncate_and_normalize

rows = arrays(np.float32, (3, 8), elements=st.floats(-1e3, 1e3, width=32))


@given(rows, st.integers(0, 8))
def test_normalized_rows_have_length_one_or_are_zero(given_rows: np.ndarray, dimensions: int) -> None:
    made = truncate_and_normalize(given_rows, dimensions, normalize=True)
    assert made.shape == (3, dimensions or 8)
    assert made.dtype == np.float32
    for row, source in zip(made, given_rows, strict=True):
        length = np.linalg.norm(row.astype(np.float64))
        if np.linalg.norm(source[: dimensions or 8]) > 1e-6:
            assert abs(length - 1) < 1e-5
        else:
            assert length <= 1 + 1e-5


def test_truncation_precedes_normalization() -> None:
    made = truncate_and_normalize(np.array([[3, 4, 100]], dtype=np.float32), 2, normalize=True)
    np.testing.assert_allclose(made, [[0.6, 0.8]], rtol=1e-6)


def test_raw_rows_are_unchanged() -> None:
    source = np.array([[3, 4, 100]], dtype=np.float32)
    np.testing.assert_array_equal(truncate_and_normalize(source, 0, normalize=False), source)
