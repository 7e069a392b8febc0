"""The samples of a run, and their medians over the rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.load_generator.spans import Numbers
from benchmarks.measurement.batches import Batches, total


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender under one load for one window."""

    contender: str
    """Name of the contender."""
    case: str
    """Name of the load."""
    round: int
    """Number of the round, from 1."""
    unit: str
    """Unit of the items: `texts` or `pairs`."""
    items_per_second: float
    """Texts, or pairs of a query and a document, per second."""
    requests: Numbers
    """Throughput and latency of requests; for the direct call, of calls."""
    cores: Mapping[str, float]
    """Mean number of cores that each process tree and other processes used."""
    batches: Batches | None = None
    """Batches of the service that has the model over its device, warm-up included; None where it took no part."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of a figure over the rounds."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Row:
    """One contender under one load, over all rounds. Comparisons are within a round; then the median is taken."""

    contender: str
    case: str
    unit: str
    """Unit of `items_per_second`: `texts` or `pairs`."""
    items_per_second: Spread
    requests_per_second: Spread
    p50_ms: Spread
    p95_ms: Spread
    p99_ms: Spread
    ratio: Spread
    """Throughput in items, divided by that of the direct call."""
    added_p50_ms: Spread
    """Median latency minus that of the direct call; negative: faster."""
    added_p95_ms: Spread
    """The same for the 95th percentiles."""
    load_cores: float
    """Cores that the load generator used, which the service could not use."""
    mean_batch: float | None
    """Items in a batch, on average; None where there is no metric."""
    batch_sizes: Mapping[str, float] | None
    """Share of the batches by size."""


def rows(samples: Sequence[Sample], reference: str, load: str) -> list[Row]:
    """One row per contender and case, in the order of the first round.

    Args:
        samples: All rounds of all contenders.
        reference: Name of the direct call, which every case and round must have.
        load: Name of the load generator among `Sample.cores`.
    """
    base = {(s.case, s.round): s for s in samples if s.contender == reference}
    cases = dict.fromkeys(s.case for s in samples)
    names = dict.fromkeys(s.contender for s in samples if s.round == 1)
    found = []
    for case in cases:
        for name in names:
            mine = [s for s in samples if (s.case, s.contender) == (case, name)]
            if mine:
                found.append(_row(mine, [base[case, s.round] for s in mine], load))
    return found


def _row(mine: Sequence[Sample], base: Sequence[Sample], load: str) -> Row:
    pairs = list(zip(mine, base, strict=True))
    batches = [s.batches for s in mine if s.batches is not None]
    together = total(batches) if batches else None
    return Row(
        contender=mine[0].contender,
        case=mine[0].case,
        unit=mine[0].unit,
        items_per_second=spread([s.items_per_second for s in mine]),
        requests_per_second=spread([s.requests.per_second for s in mine]),
        p50_ms=spread([s.requests.p50_ms for s in mine]),
        p95_ms=spread([s.requests.p95_ms for s in mine]),
        p99_ms=spread([s.requests.p99_ms for s in mine]),
        ratio=spread([s.items_per_second / b.items_per_second for s, b in pairs]),
        added_p50_ms=spread([s.requests.p50_ms - b.requests.p50_ms for s, b in pairs]),
        added_p95_ms=spread([s.requests.p95_ms - b.requests.p95_ms for s, b in pairs]),
        load_cores=median(s.cores.get(load, 0.0) for s in mine),
        mean_batch=None if together is None else together.mean,
        batch_sizes=None if together is None else together.shares(),
    )


def spread(values: Sequence[float]) -> Spread:
    """Median and extremes."""
    return Spread(median(values), min(values), max(values))
