"""CPU time used during a window: by each named process tree, and by all other processes on the machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from benchmarks.systems.processes import tree

OWN = "benchmark"
"""Name of this process, without its children."""
OTHER_PROCESSES = "other processes"
"""Name of all processes outside the benchmark."""
STOLEN = "stolen"
"""Name of the CPU time that the hypervisor gave to other machines while this one had work."""


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds used up to one moment."""

    at: float
    """The moment, in seconds."""
    used: Mapping[str, float]
    """CPU seconds of each tree, of this process, of other processes, and stolen ones."""


def read(trees: Mapping[str, int]) -> Reading:
    """Reads the CPU time of process trees, given by the id of their root."""
    busy = psutil.cpu_times()
    total = busy.user + busy.system + busy.nice
    used = {name: sum(_seconds(process) for process in tree(pid)) for name, pid in trees.items()}
    used[OWN] = time.process_time()
    return Reading(time.perf_counter(), {**used, OTHER_PROCESSES: total - sum(used.values()), STOLEN: busy.steal})


def cores_between(before: Reading, after: Reading) -> dict[str, float]:
    """Mean number of cores that each used between two readings."""
    elapsed = after.at - before.at
    return {name: max(0.0, (used - before.used[name]) / elapsed) for name, used in after.used.items()}


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
