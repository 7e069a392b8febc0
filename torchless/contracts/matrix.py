"""Conversion of the `Matrix` message to and from numpy, without a copy on little-endian machines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.types.v1.types_pb2 import Matrix

_WIRE_DTYPE = np.dtype("<f4")


def to_message(array: NDArray[np.float32]) -> Matrix:
    """A message for `array`, shape (rows, dimensions), float32."""
    rows, dimensions = array.shape
    return Matrix(rows=rows, dimensions=dimensions, data=array.astype(_WIRE_DTYPE, order="C", copy=False).tobytes())


def from_message(message: Matrix) -> NDArray[np.float32]:
    """A read-only view of the message's bytes, shape (rows, dimensions), float32.

    Raises:
        TorchlessError: INTERNAL, if the data is not rows * dimensions * 4 bytes long.
    """
    expected = message.rows * message.dimensions * _WIRE_DTYPE.itemsize
    data = message.data  # once: each access copies the bytes
    if len(data) != expected:
        raise TorchlessError(
            ErrorKind.INTERNAL, "the service sent a matrix whose data does not match its rows and dimensions"
        )
    flat = np.frombuffer(data, dtype=_WIRE_DTYPE)
    return flat.reshape(message.rows, message.dimensions).astype(np.float32, copy=False)
