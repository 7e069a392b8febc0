"""Differences between the answers of two systems."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def least_cosine(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The least cosine between corresponding rows; both arrays have shape (texts, dimensions)."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    return float(np.min(np.sum(vectors * reference, axis=1, dtype=np.float64) / lengths))


def largest_difference(scores: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The largest absolute difference; both arrays have the same shape."""
    return float(np.max(np.abs(scores - reference)))
