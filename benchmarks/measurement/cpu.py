"""CPU time used during a window: by each named process tree, and by all other processes on the machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from benchmarks.systems.processes import tree

OWN = "benchmark"
"""Name for this process, which reads and shows: its children are trees, or strangers."""
STRANGERS = "strangers"
"""Name for all processes that are not of the benchmark."""
STOLEN = "stolen"
"""Name for what the hypervisor gave to other machines while this one had work for it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Processor seconds used up to one moment."""

    at: float
    """The moment, in seconds."""
    used: Mapping[str, float]
    """Seconds of each tree, of this process, of strangers, and those stolen."""


def read(trees: Mapping[str, int]) -> Reading:
    """Reads the processor time of trees, given by the id of their root."""
    busy = psutil.cpu_times()
    total = busy.user + busy.system + busy.nice
    used = {name: sum(_seconds(process) for process in tree(pid)) for name, pid in trees.items()}
    used[OWN] = time.process_time()
    return Reading(time.perf_counter(), {**used, STRANGERS: total - sum(used.values()), STOLEN: busy.steal})


def cores_between(before: Reading, after: Reading) -> dict[str, float]:
    """Processors that each kept busy between two readings, on average: 1.0 is one core."""
    elapsed = after.at - before.at
    return {name: max(0.0, (used - before.used[name]) / elapsed) for name, used in after.used.items()}


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
