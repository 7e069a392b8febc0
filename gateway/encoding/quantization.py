"""Cohere's small embedding types.

Cohere publishes the value ranges, not how its int8 is calibrated. sentence-transformers' `quantize_embeddings` takes
the range of each dimension from a calibration set, or from the request's own batch, so that a vector's code depends on
data that a gateway does not have. Here the range is fixed, the same for every dimension and symmetric about zero: a
vector of length 1 with d dimensions has values of about 1/sqrt(d), so four times that is the range, and the few values
past it are clipped. Dot products of int8 codes are then those of the vectors times a constant, which keeps rankings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

_RANGE = 4.0


def int8(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Codes -127 to 127 of vectors of length 1, shape (rows, dimensions): round(value * 127 * sqrt(dimensions) / 4)."""
    scale = np.float32(127.0 * np.sqrt(vectors.shape[1]) / _RANGE)
    codes: NDArray[np.int8] = np.clip(np.rint(vectors * scale), -127, 127).astype(np.int8)
    return codes


def uint8(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The codes of `int8` plus 128: 1 to 255; 128 means zero."""
    return (int8(vectors).astype(np.int16) + 128).astype(np.uint8)


def ubinary(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """One bit for each dimension, 1 for values above zero; the first dimension is the highest bit of the first byte.

    Shape (rows, ceil(dimensions / 8)); missing bits of the last byte are 0.
    """
    return np.packbits(vectors > 0, axis=1)


def binary(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """The bytes of `ubinary` minus 128 (offset binary)."""
    return (ubinary(vectors).astype(np.int16) - 128).astype(np.int8)


QUANTIZERS: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.int8] | NDArray[np.uint8]]] = {
    "int8": int8,
    "uint8": uint8,
    "ubinary": ubinary,
    "binary": binary,
}
"""By the name of Cohere's embedding type."""
