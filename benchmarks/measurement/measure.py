"""Measures every contender under every load, round after round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.data.inputs import Pools
from benchmarks.load_generator.spans import numbers
from benchmarks.measurement.batches import read_batches
from benchmarks.measurement.cpu import cores_between, read
from benchmarks.measurement.differences import largest_difference, least_cosine
from benchmarks.measurement.samples import Sample
from benchmarks.plan import Case, Plan, Task
from benchmarks.systems.contenders import Contender
from benchmarks.systems.stack import Stack

_SAME_DIRECTION = 0.9999
_SAME_SCORE = 1e-4
_CHECKED = {
    Task.EMBEDDING: Case(Task.EMBEDDING, "", in_flight=1, items=64),
    Task.RERANKING: Case(Task.RERANKING, "", in_flight=1, items=10),
    Task.CROSS_ENCODER: Case(Task.CROSS_ENCODER, "", in_flight=1, items=10),
}
"""The requests whose answers are checked before anything is timed."""
_CHECKED_REQUESTS = 4
Announce = Callable[[str], None]
"""Called with a description of the next window."""


class WrongAnswersError(Exception):
    """A contender's answers differ from the direct call's, so comparing their speed means nothing."""


def fidelity(stack: Stack, pools: Pools, task: Task) -> dict[str, float]:
    """Compares the answers of each contender with those of the direct call.

    Returns:
        By contender: for embedding the least cosine between two vectors of one text, otherwise the largest difference
        between two raw scores of one document.

    Raises:
        WrongAnswersError: A contender cannot have the same weights.
    """
    requests = pools.requests(_CHECKED[task])[:_CHECKED_REQUESTS]
    direct, *others = stack.contenders[task]
    reference = direct.answer(requests)
    found = {}
    for contender in others:
        compare = least_cosine if task is Task.EMBEDDING else largest_difference
        figure = found[contender.name] = compare(contender.answer(requests), reference)
        near = figure >= _SAME_DIRECTION if task is Task.EMBEDDING else figure <= _SAME_SCORE
        if not near:  # also if the figure is NaN
            what = "cosine" if task is Task.EMBEDDING else "difference of scores"
            raise WrongAnswersError(f"{contender.name} does not have the same weights: {what} {figure:.6f}")
    return found


def measure(stack: Stack, plan: Plan, pools: Pools, announce: Announce) -> list[Sample]:
    """Takes all samples; the contenders of a case follow one another, in reverse order every other round."""
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
        processes: Names of the process trees of each contender, by case and contender.
    """
    trees = frozenset().union(*processes.values())
    return [
        sum(cores for name, cores in s.cores.items() if name in trees - processes[s.case, s.contender]) for s in samples
    ]
