"""The run itself: every contestant under every load, round after round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.batches import read_passes
from benchmarks.contestants import Contestant
from benchmarks.cpu import cores_between, read
from benchmarks.plan import POOL, Case, Plan
from benchmarks.samples import Sample
from benchmarks.spans import numbers
from benchmarks.stack import Stack
from benchmarks.texts import Length, passages

_SAME_WEIGHTS = 0.9999
Announce = Callable[[str], None]
"""Told what is measured next."""


class WrongVectorsError(Exception):
    """A contestant does not answer what the direct call answers, so comparing its speed says nothing."""


def pools() -> dict[Length, list[str]]:
    """The texts of the run, the same for everybody."""
    return {length: passages(POOL, length, seed=1) for length in Length}


def fidelity(stack: Stack, texts: Sequence[str]) -> dict[str, float]:
    """The least cosine of each contestant's vectors with those of the direct call.

    Raises:
        WrongVectorsError: One is so far off that it cannot run on the same weights.
    """
    reference = stack.direct.vectors(texts)
    found = {}
    for contestant in stack.contestants[1:]:
        vectors = contestant.vectors(texts)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
        found[contestant.name] = float(np.min(np.sum(vectors * reference, axis=1, dtype=np.float64) / lengths))
        if found[contestant.name] < _SAME_WEIGHTS:
            raise WrongVectorsError(
                f"{contestant.name} does not run the same weights: cosine {found[contestant.name]:.6f}"
            )
    return found


def measure(stack: Stack, plan: Plan, announce: Announce) -> list[Sample]:
    """All samples. Within a case contestants follow one another at once, in the opposite order every other round."""
    texts = pools()
    samples = []
    for number in range(1, plan.rounds + 1):
        order = list(stack.contestants) if number % 2 else list(reversed(stack.contestants))
        for case in plan.cases:
            for contestant in order:
                announce(f"round {number} of {plan.rounds}: {contestant.name}, {case.name}")
                samples.append(_sample(stack, contestant, case, texts=texts[case.length], plan=plan, number=number))
    return samples


def _sample(
    stack: Stack, contestant: Contestant, case: Case, *, texts: Sequence[str], plan: Plan, number: int
) -> Sample:
    uses_the_service = "embedding" in contestant.processes
    passes = read_passes(stack.metrics_port) if uses_the_service else None
    before = read(stack.trees)
    spans = contestant.time(texts, case, plan.warm_up_s, plan.seconds)
    after = read(stack.trees)
    found = numbers(spans, plan.seconds)
    return Sample(
        contestant=contestant.name,
        case=case.name,
        round=number,
        texts_per_second=found.per_second * contestant.texts_in_one(case),
        requests=found,
        cores=cores_between(before, after),
        passes=None if passes is None else read_passes(stack.metrics_port) - passes,
    )


def idle_cores(samples: Sequence[Sample], processes: Mapping[str, frozenset[str]]) -> list[float]:
    """For each sample, the processors that contestants other than the one measured kept busy together.

    Args:
        samples: Samples of a run.
        processes: Names of the process trees that work for each contestant.
    """
    contestants = frozenset().union(*processes.values())
    return [
        sum(cores for name, cores in s.cores.items() if name in contestants - processes[s.contestant]) for s in samples
    ]
