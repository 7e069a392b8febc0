"""Vectors as base64 of little-endian float32, as OpenAI and Cohere encode them."""

from __future__ import annotations

from binascii import b2a_base64

import numpy as np
from numpy.typing import NDArray


def base64_rows(vectors: NDArray[np.float32]) -> list[str]:
    """One text for each row of `vectors`, shape (rows, dimensions): its bytes in base64 without line breaks."""
    wire = np.ascontiguousarray(vectors, dtype="<f4")
    return [b2a_base64(row.data, newline=False).decode("ascii") for row in wire]
