"""Truncation and normalization of a model's vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SHORTEST = 1e-12  # the least divisor of torch.nn.functional.normalize


def truncate_and_normalize(rows: NDArray[np.float32], dimensions: int, normalize: bool) -> NDArray[np.float32]:
    """Truncates each row to its first `dimensions` and, with `normalize`, scales it to length 1.

    Truncation comes first, because it changes the length (Kusupati et al., "Matryoshka Representation Learning", 2022).

    Args:
        rows: Shape (rows, full dimensions).
        dimensions: Length to truncate to; 0: the full length.
        normalize: Whether to scale.
    """
    if dimensions:
        rows = rows[:, :dimensions]
    if not normalize:
        return rows
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float32)
    scaled: NDArray[np.float32] = (rows / np.maximum(lengths, _SHORTEST)).astype(np.float32, copy=False)
    return scaled
