"""What every client is asked to put in order, and what the order is held against."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

QUERY = "How do swifts sleep?"
PASSAGES = (
    "Bread needs salt, and dough needs time.",
    "A swift may fly for ten months without once coming to rest. " * 40,
    "Swifts sleep on the wing: for minutes at a time,\nthey glide with half of the brain awake.",
    "The harbour froze early that year, and no ship came before April.",
    "Der Mauersegler schläft im Flug. 雨燕在飞行中睡觉。 🐦",
)
"""One is cut by the model; no two have scores that are close."""
BEST = 2
"""Index of the passage that answers the query."""
NUMBERS_OF_BEST = (1, 2, 50)
"""Values for what clients call top_n or top_k; the last one is more than there are."""


def assert_ranked(found: Iterable[tuple[int, float]], scores: NDArray[np.float64], top_n: int | None = None) -> None:
    """Fails unless `found` is the best of the passages in order.

    Args:
        found: Index and score of each passage that the client answers, in the order in which it does.
        scores: The score of every passage, each from a separate request; shape (passages,).
        top_n: Number of requested results; None: all.
    """
    indices, given = zip(*found, strict=True)
    assert indices[0] == BEST
    assert list(indices) == np.argsort(-scores)[:top_n].tolist()
    assert list(given) == sorted(given, reverse=True)
    np.testing.assert_allclose(given, scores[list(indices)], rtol=0, atol=1e-5)
