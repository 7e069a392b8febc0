"""From what a model pools to what a caller asked for: cut, then scaled to length 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SHORTEST = 1e-12  # what torch.nn.functional.normalize divides by at least


def truncate_and_normalize(rows: NDArray[np.float32], dimensions: int, normalize: bool) -> NDArray[np.float32]:
    """Rows cut to their first `dimensions` (0: whole) and, if wanted, each scaled to length 1.

    Cutting comes first: a vector of length 1 is no longer one after it (Kusupati et al., "Matryoshka Representation
    Learning", 2022).

    Args:
        rows: Shape (rows, whole dimensions).
        dimensions: Length to cut to.
        normalize: Whether to scale.
    """
    if dimensions:
        rows = rows[:, :dimensions]
    if not normalize:
        return rows
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float32)
    scaled: NDArray[np.float32] = (rows / np.maximum(lengths, _SHORTEST)).astype(np.float32, copy=False)
    return scaled
