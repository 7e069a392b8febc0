"""Statistical significance of the difference between two systems on the same questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 100_000
"""Draws for the test and for the interval."""
_EXACT_UP_TO = 16
_SEED = 20_020
_CHUNK = 4096
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Difference:
    """The second system minus the first, question by question."""

    mean: float
    """Mean over all questions."""
    low: float
    """Lower end of the 95 % bootstrap interval of the mean."""
    high: float
    """Upper end of the interval."""
    p_value: float
    """p value of the two-sided paired randomisation test."""
    better: int
    """Questions on which the second system is better."""
    worse: int
    """Questions on which it is worse."""
    equal: int
    """Questions on which both are equal."""


def compare(first: NDArray[np.float64], second: NDArray[np.float64]) -> Difference:
    """The paired difference between two systems.

    Args:
        first: Shape (questions,): a figure for each question; the higher, the better.
        second: The figures of the second system for the same questions.
    """
    differences = second - first
    low, high = bootstrap_interval(differences)
    return Difference(
        mean=float(differences.mean()),
        low=low,
        high=high,
        p_value=randomisation_p_value(differences),
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        equal=int((differences == 0).sum()),
    )


def randomisation_p_value(differences: NDArray[np.float64], draws: int = DRAWS) -> float:
    """Probability of a mean at least as far from 0 if the sign of each difference were random.

    Fisher's test by randomisation ("The design of experiments", 1935, section 21), as Smucker, Allan and Carterette
    recommend it for retrieval (2007). Exact if few questions differ; otherwise from `draws` draws with a fixed seed.
    The observed signs count as one more draw, so that the value is never 0.

    Args:
        differences: Shape (questions,).
        draws: Number of draws if it is not exact.
    """
    changed = differences[differences != 0]  # a 0 is 0 with either sign
    if not changed.size:
        return 1.0
    observed = abs(changed.sum()) - _ROUNDING
    if changed.size <= _EXACT_UP_TO:
        every = np.arange(2**changed.size)[:, np.newaxis] >> np.arange(changed.size) & 1
        return float((np.abs((2 * every - 1) @ changed) >= observed).mean())
    random = np.random.default_rng(_SEED)
    extreme = 0
    for size in _chunks(draws):
        signs = 2 * random.integers(0, 2, (size, changed.size), dtype=np.int8) - 1
        extreme += int((np.abs(signs @ changed) >= observed).sum())
    return (extreme + 1) / (draws + 1)


def bootstrap_interval(differences: NDArray[np.float64], draws: int = DRAWS) -> tuple[float, float]:
    """The 95 % interval of the mean, by percentiles over questions drawn with replacement, with a fixed seed.

    Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    """
    random = np.random.default_rng(_SEED)
    # A mean depends only on how often each value is drawn, and there are few different values.
    values, counts = np.unique(differences, return_counts=True)
    drawn = random.multinomial(differences.size, counts / differences.size, size=draws)
    low, high = np.quantile(drawn @ values / differences.size, (0.025, 0.975))
    return float(low), float(high)


def _chunks(draws: int) -> list[int]:
    """Sizes of parts that fit into memory."""
    return [min(_CHUNK, draws - first) for first in range(0, draws, _CHUNK)]
