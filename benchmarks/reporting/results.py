"""All results of one run, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import orjson

from benchmarks.client_layer.measure import LayerResults
from benchmarks.measurement.cpu import OTHER_PROCESSES, STOLEN
from benchmarks.measurement.samples import Row, Sample
from benchmarks.plan import Plan, Task
from benchmarks.reporting.aims import Verdict
from benchmarks.systems.footprint import Memory

_QUIET_CORES = 0.1


@dataclass(frozen=True, slots=True)
class LayerRun:
    """Results of a run of only the client layer."""

    machine: Mapping[str, Any]
    """See `machine.facts`."""
    versions: Mapping[str, Mapping[str, str]]
    """Versions of packages, by environment."""
    layer: LayerResults
    """The results."""
    verdicts: Sequence[Verdict]
    """The verdict on its aim."""

    @property
    def disturbance(self) -> float:
        """Cores used by other processes and the hypervisor together, median over the windows."""
        return _disturbance(self.layer.samples)


@dataclass(frozen=True, slots=True)
class Results:
    """Results of one run."""

    machine: Mapping[str, Any]
    """See `machine.facts`."""
    versions: Mapping[str, Mapping[str, str]]
    """Versions of packages, by environment."""
    threads: int
    """Threads of the direct call."""
    tokens: Mapping[str, Mapping[str, float]]
    """Tokens of the texts (mean, least, most), by kind of text."""
    documents: str
    """A description of the source of queries and documents."""
    plan: Plan
    """How much was measured."""
    fidelity: Mapping[Task, Mapping[str, float]]
    """For each task and contender, the lowest cosine with the direct call's vectors, or the largest difference from its
    scores."""
    starts_s: Sequence[float]
    """Start times of the gateway, in seconds."""
    memory_idle: Sequence[Memory]
    """The gateway's processes before the first request."""
    memory_used: Sequence[Memory]
    """The same after all load."""
    idle_cores: Sequence[float]
    """For each sample, cores used by contenders that were not measured."""
    samples: Sequence[Sample]
    """Every window."""
    rows: Sequence[Row]
    """The medians."""
    layer: LayerResults | None
    """The client layer; None: not measured."""
    verdicts: Sequence[Verdict]
    """The verdicts on the aims."""

    @property
    def disturbance(self) -> float:
        """Cores used by other processes and the hypervisor together, median over the windows."""
        return _disturbance(self.samples)


def _disturbance(samples: Sequence[Sample]) -> float:
    return median(sample.cores[OTHER_PROCESSES] + sample.cores[STOLEN] for sample in samples)


def warning(results: Results | LayerRun) -> str:
    """A warning if the machine was not quiet; empty if it was."""
    if results.disturbance <= _QUIET_CORES:
        return ""
    return (
        f"The machine was not quiet: others took {results.disturbance:.2f} of its {results.machine['cores']} cores "
        "at the median. These results are not reliable; measure again."
    )


def to_json(results: Results | LayerRun) -> bytes:
    """The results as indented JSON."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(asdict(results), option=options)
