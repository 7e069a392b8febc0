"""Quality of an order of documents in which one document is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOT_FOUND = 0
"""Rank of a document that was not found."""


def ranks(found: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.int64]:
    """Ranks of the right documents, from 1, or `NOT_FOUND`.

    Args:
        found: Shape (questions, documents): indices of documents, the best first.
        right: Shape (questions,): the index of the one right document of each question.
    """
    hits = found == right[:, np.newaxis]
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, NOT_FOUND)


def ndcg(positions: NDArray[np.int64], depth: int = 10) -> NDArray[np.float64]:
    """nDCG at `depth` for each rank: 1 / log2(1 + rank) up to `depth`, 0 beyond it or if it was not found.

    With one right document the ideal gain is 1. (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR
    techniques", 2002.)
    """
    inside = (positions != NOT_FOUND) & (positions <= depth)
    return np.where(inside, 1 / np.log2(1 + np.where(inside, positions, 1)), 0.0)
