"""The run itself: every contender under every load, round after round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.inputs import Pools
from benchmarks.load_generator.spans import numbers
from benchmarks.measurement.batches import read_batches
from benchmarks.measurement.cpu import cores_between, read
from benchmarks.measurement.samples import Sample
from benchmarks.plan import Case, Plan, Task
from benchmarks.systems.contenders import Contender
from benchmarks.systems.stack import Stack

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
    """A contender does not answer what the direct call answers, so comparing its speed says nothing."""


def fidelity(stack: Stack, pools: Pools, task: Task) -> dict[str, float]:
    """How near each contender's answers are to the direct call's: the least cosine, or the largest difference.

    Returns:
        For embedding the least cosine of two vectors of one text, otherwise the largest difference between two raw
        scores of one document; by contender.

    Raises:
        WrongAnswersError: One is so far off that it cannot run on the same weights.
    """
    requests = pools.requests(_TRIED[task])[:_TRIED_REQUESTS]
    direct, *others = stack.contenders[task]
    reference = direct.answer(requests)
    found = {}
    for contender in others:
        compare = least_cosine if task is Task.EMBEDDING else largest_difference
        figure = found[contender.name] = compare(contender.answer(requests), reference)
        near = figure >= _SAME_DIRECTION if task is Task.EMBEDDING else figure <= _SAME_SCORE
        if not near:  # which it is not, either, where the figure is not a number
            what = "cosine" if task is Task.EMBEDDING else "difference of scores"
            raise WrongAnswersError(f"{contender.name} does not run the same weights: {what} {figure:.6f}")
    return found


def least_cosine(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The least cosine between rows of the same number; both of shape (texts, dimensions)."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    return float(np.min(np.sum(vectors * reference, axis=1, dtype=np.float64) / lengths))


def largest_difference(scores: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The largest absolute difference; both of one shape."""
    return float(np.max(np.abs(scores - reference)))


def measure(stack: Stack, plan: Plan, pools: Pools, announce: Announce) -> list[Sample]:
    """All samples. Within a case contenders follow one another at once, in the opposite order every other round."""
    samples = []
    for number in range(1, plan.rounds + 1):
        for case in plan.cases:
            contenders = stack.contenders_of(case)
            for contender in contenders if number % 2 else reversed(contenders):
                announce(f"round {number} of {plan.rounds}: {contender.name}, {case.name}")
                samples.append(_sample(stack, contender, case, pools=pools, plan=plan, number=number))
    return samples


def _sample(stack: Stack, contender: Contender, case: Case, *, pools: Pools, plan: Plan, number: int) -> Sample:
    ports = [port for service, port in stack.metrics_ports.items() if service in contender.processes]
    requests = pools.requests(case)
    earlier = [read_batches(port) for port in ports]
    before = read(stack.trees)
    spans = contender.time(requests, case, plan.warm_up_s, plan.seconds)
    after = read(stack.trees)
    batches = [read_batches(port) - was for port, was in zip(ports, earlier, strict=True)]
    found = numbers(spans, plan.seconds)
    return Sample(
        contender=contender.name,
        case=case.name,
        round=number,
        unit=case.task.unit,
        items_per_second=found.per_second * contender.items_in_one(case),
        requests=found,
        cores=cores_between(before, after),
        batches=batches[0] if batches else None,
    )


def idle_cores(samples: Sequence[Sample], processes: Mapping[tuple[str, str], frozenset[str]]) -> list[float]:
    """For each sample, the cores used by all contenders that were not measured.

    Args:
        samples: Samples of a run.
        processes: Names of the process trees that work for each contender, by case and name.
    """
    trees = frozenset().union(*processes.values())
    return [
        sum(cores for name, cores in s.cores.items() if name in trees - processes[s.case, s.contender]) for s in samples
    ]
