"""Everything that one run found, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import orjson

from benchmarks.client_layer.measure import LayerResults
from benchmarks.measurement.cpu import STOLEN, STRANGERS
from benchmarks.measurement.samples import Row, Sample
from benchmarks.plan import Plan, Task
from benchmarks.reporting.aims import Verdict
from benchmarks.systems.footprint import Memory

_QUIET_CORES = 0.1


@dataclass(frozen=True, slots=True)
class LayerRun:
    """A run of the client layer alone."""

    machine: Mapping[str, Any]
    """See `machine.facts`."""
    versions: Mapping[str, Mapping[str, str]]
    """Versions of packages, by environment."""
    layer: LayerResults
    """What was found."""
    verdicts: Sequence[Verdict]
    """The aim."""

    @property
    def disturbance(self) -> float:
        """Processors that strangers and the hypervisor took together, median over the windows."""
        return _disturbance(self.layer.samples)


@dataclass(frozen=True, slots=True)
class Results:
    """One run."""

    machine: Mapping[str, Any]
    """See `machine.facts`."""
    versions: Mapping[str, Mapping[str, str]]
    """Versions of packages, by environment."""
    threads: int
    """Threads of a direct call."""
    tokens: Mapping[str, Mapping[str, float]]
    """Tokens of the texts (mean, least, most), by kind."""
    documents: str
    """Where queries and documents come from, in words."""
    plan: Plan
    """How much was measured."""
    fidelity: Mapping[Task, Mapping[str, float]]
    """For each task and contender, the least cosine with the direct call's vectors, or the largest difference from its
    scores."""
    starts_s: Sequence[float]
    """Start times of the gateway."""
    memory_idle: Sequence[Memory]
    """The gateway's processes before the first request."""
    memory_used: Sequence[Memory]
    """The same after all load."""
    idle_cores: Sequence[float]
    """For each sample, processors that contenders which were not measured kept busy."""
    samples: Sequence[Sample]
    """Every window."""
    rows: Sequence[Row]
    """The medians."""
    layer: LayerResults | None
    """The client layer; None where it was left out."""
    verdicts: Sequence[Verdict]
    """The aims."""

    @property
    def disturbance(self) -> float:
        """Processors that strangers and the hypervisor took together, median over the windows."""
        return _disturbance(self.samples)


def _disturbance(samples: Sequence[Sample]) -> float:
    return median(sample.cores[STRANGERS] + sample.cores[STOLEN] for sample in samples)


def warning(results: Results | LayerRun) -> str:
    """What to say before any figure where the machine was not quiet; empty where it was."""
    if results.disturbance <= _QUIET_CORES:
        return ""
    return (
        f"The machine was not quiet: others took {results.disturbance:.2f} of its {results.machine['cores']} cores "
        "at the median. These figures and verdicts say little; measure again."
    )


def to_json(results: Results | LayerRun) -> bytes:
    """All of it, indented."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(asdict(results), option=options)
