"""Everything that one run found, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from benchmarks.aims import Verdict
from benchmarks.footprint import Memory
from benchmarks.plan import Plan
from benchmarks.samples import Row, Sample


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
    """Tokens of the texts (mean, least, most), by length."""
    plan: Plan
    """How much was measured."""
    fidelity: Mapping[str, float]
    """Least cosine with the direct call's vectors, by contestant."""
    starts_s: Sequence[float]
    """Start times of the gateway."""
    memory_idle: Sequence[Memory]
    """The gateway's processes before the first request."""
    memory_used: Sequence[Memory]
    """The same after all load."""
    idle_cores: Sequence[float]
    """For each sample, processors that contestants which were not measured kept busy."""
    samples: Sequence[Sample]
    """Every window."""
    rows: Sequence[Row]
    """The medians."""
    verdicts: Sequence[Verdict]
    """The aims."""


def to_json(results: Results) -> bytes:
    """All of it, indented."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(asdict(results), option=options)
