"""The run itself: every contestant under every load, round after round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.batches import read_passes
from benchmarks.contestants import Contestant
from benchmarks.cpu import cores_between, read
from benchmarks.inputs import Pools
from benchmarks.plan import Case, Plan, Task
from benchmarks.samples import Sample
from benchmarks.spans import numbers
from benchmarks.stack import Stack

_SAME_DIRECTION = 0.9999
_SAME_SCORE = 1e-4
_TRIED = {
    Task.EMBEDDING: Case(Task.EMBEDDING, "", in_flight=1, items=64),
    Task.RERANKING: Case(Task.RERANKING, "", in_flight=1, items=10),
    Task.CROSS_ENCODER: Case(Task.CROSS_ENCODER, "", in_flight=1, items=10),
}
"""What is asked before anything is timed, and of that the first few requests."""
_TRIED_REQUESTS = 4
Announce = Callable[[str], None]
"""Told what is measured next."""


class WrongAnswersError(Exception):
    """A contestant does not answer what the direct call answers, so comparing its speed says nothing."""


def fidelity(stack: Stack, pools: Pools, task: Task) -> dict[str, float]:
    """How near each contestant's answers are to the direct call's: the least cosine, or the largest difference.

    Returns:
        For embedding the least cosine of two vectors of one text, otherwise the largest difference between two raw
        scores of one document; by contestant.

    Raises:
        WrongAnswersError: One is so far off that it cannot run on the same weights.
    """
    requests = pools.requests(_TRIED[task])[:_TRIED_REQUESTS]
    direct, *others = stack.contestants[task]
    reference = direct.answer(requests)
    found = {}
    for contestant in others:
        compare = least_cosine if task is Task.EMBEDDING else largest_difference
        figure = found[contestant.name] = compare(contestant.answer(requests), reference)
        near = figure >= _SAME_DIRECTION if task is Task.EMBEDDING else figure <= _SAME_SCORE
        if not near:  # which it is not, either, where the figure is not a number
            what = "cosine" if task is Task.EMBEDDING else "difference of scores"
            raise WrongAnswersError(f"{contestant.name} does not run the same weights: {what} {figure:.6f}")
    return found


def least_cosine(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The least cosine between rows of the same number; both of shape (texts, dimensions)."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    return float(np.min(np.sum(vectors * reference, axis=1, dtype=np.float64) / lengths))


def largest_difference(scores: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The largest absolute difference; both of one shape."""
    return float(np.max(np.abs(scores - reference)))


def measure(stack: Stack, plan: Plan, pools: Pools, announce: Announce) -> list[Sample]:
    """All samples. Within a case contestants follow one another at once, in the opposite order every other round."""
    samples = []
    for number in range(1, plan.rounds + 1):
        for case in plan.cases:
            contestants = stack.contestants_of(case)
            for contestant in contestants if number % 2 else reversed(contestants):
                announce(f"round {number} of {plan.rounds}: {contestant.name}, {case.name}")
                samples.append(_sample(stack, contestant, case, pools=pools, plan=plan, number=number))
    return samples


def _sample(stack: Stack, contestant: Contestant, case: Case, *, pools: Pools, plan: Plan, number: int) -> Sample:
    ports = [port for service, port in stack.metrics_ports.items() if service in contestant.processes]
    requests = pools.requests(case)
    earlier = [read_passes(port) for port in ports]
    before = read(stack.trees)
    spans = contestant.time(requests, case, plan.warm_up_s, plan.seconds)
    after = read(stack.trees)
    passes = [read_passes(port) - was for port, was in zip(ports, earlier, strict=True)]
    found = numbers(spans, plan.seconds)
    return Sample(
        contestant=contestant.name,
        case=case.name,
        round=number,
        unit=case.task.unit,
        items_per_second=found.per_second * contestant.items_in_one(case),
        requests=found,
        cores=cores_between(before, after),
        passes=passes[0] if passes else None,
    )


def idle_cores(samples: Sequence[Sample], processes: Mapping[tuple[str, str], frozenset[str]]) -> list[float]:
    """For each sample, the processors that everybody but the contestant measured kept busy together.

    Args:
        samples: Samples of a run.
        processes: Names of the process trees that work for each contestant, by case and name.
    """
    trees = frozenset().union(*processes.values())
    return [
        sum(cores for name, cores in s.cores.items() if name in trees - processes[s.case, s.contestant])
        for s in samples
    ]
