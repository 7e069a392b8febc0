"""Measures the cost of the client layer: every variant, and a bare stub, against a service that answers at once."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.client_layer.variants import BARE
from benchmarks.load_generator.spans import Numbers
from benchmarks.measurement.cpu import cores_between, read
from benchmarks.measurement.samples import Row, Sample, rows
from benchmarks.plan import LayerPlan
from benchmarks.systems.stack import servers_up
from benchmarks.systems.worker_process import WorkerProcess
from torchless.cli.free_ports import free_ports
from torchless.cli.services import Service

ALONE = "one call at a time"
CROWDED = "32 in flight"
_IN_FLIGHT = {ALONE: 1, CROWDED: 32}
_CALLER, _SERVICE, _REDIS = "caller", "layer-service", "redis"
_ENDPOINTS = 3
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class LayerResults:
    """Results of the client layer."""

    plan: LayerPlan
    """How much was measured."""
    samples: Sequence[Sample]
    """Every window: each variant under the loads `ALONE` and `CROWDED`."""
    cpu_us: Sequence[float]
    """For each sample, the caller's CPU time per call, including gRPC's threads, in microseconds."""
    rows: Sequence[Row]
    """The medians; the bare stub takes the place of the direct call."""
    has_redis: bool
    """Whether Redis was available."""

    @property
    def variants(self) -> list[str]:
        """Names of the variants, in order."""
        return list(dict.fromkeys(row.contender for row in self.rows))

    def row(self, variant: str, load: str) -> Row:
        """The medians of one variant under one load."""
        return next(row for row in self.rows if (row.contender, row.case) == (variant, load))

    def cpu_us_of(self, variant: str, load: str) -> float:
        """The caller's CPU time per call of one variant, median over the rounds, in microseconds."""
        samples = zip(self.samples, self.cpu_us, strict=True)
        return median(cpu_us for sample, cpu_us in samples if (sample.contender, sample.case) == (variant, load))


def measure_layer(plan: LayerPlan, logs: Path, announce: Callable[[str], None]) -> LayerResults:
    """Measures every variant under every load, round after round, in reverse order every other round.

    Args:
        plan: How much to measure.
        logs: Folder for the logs of processes.
        announce: Called with a description once per round.

    Raises:
        ChildFailedError: A process ended, or a call returned something unexpected.
    """
    samples: list[Sample] = []
    cpu_us: list[float] = []
    with _caller_up(logs) as (caller, variants, trees):
        for number in range(1, plan.rounds + 1):
            announce(f"client layer: round {number} of {plan.rounds}")
            for load in _IN_FLIGHT:
                for variant in variants if number % 2 else reversed(variants):
                    sample, spent = _sample(caller, trees, plan, variant=variant, load=load, number=number)
                    samples.append(sample)
                    cpu_us.append(spent)
    found = rows(samples, reference=BARE, load=_CALLER)
    return LayerResults(plan, samples, cpu_us, found, has_redis=_REDIS in trees)


@contextmanager
def _caller_up(logs: Path) -> Iterator[tuple[WorkerProcess, list[str], Mapping[str, int]]]:
    """Runs the caller, the service and Redis; gives the caller, the names of its variants, and the process trees."""
    *ports, redis_port = free_ports(_ENDPOINTS + 1)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    redis = shutil.which("redis-server")
    services = [instant_service(ports), *([_redis(redis, redis_port, logs)] if redis else [])]
    caller = WorkerProcess(Path(sys.executable), "benchmarks.client_layer.load", logs / "layer-load.log")
    with servers_up(services, logs) as servers, caller:
        redis_url = f"redis://127.0.0.1:{redis_port}/0" if redis else ""
        variants = caller.ask({"do": "open", "addresses": addresses, "redis_url": redis_url}, _TIMEOUT_S)
        yield caller, variants, {_CALLER: caller.pid, **{name: server.pid for name, server in servers.items()}}


def instant_service(ports: Sequence[int]) -> Service:
    """The service that answers at once, on several ports."""
    return Service(
        name=_SERVICE,
        command=(sys.executable, "-m", "benchmarks.client_layer.instant_service", *map(str, ports)),
        ready=partial(_listens, ports[-1]),
    )


def _redis(program: str, port: int, folder: Path) -> Service:
    listen = ("--bind", "127.0.0.1", "--port", str(port))
    keep_nothing = ("--save", "", "--appendonly", "no", "--dir", str(folder))
    return Service(name=_REDIS, command=(program, *listen, *keep_nothing), ready=partial(_listens, port))


async def _listens(port: int) -> bool:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return True


def _sample(
    caller: WorkerProcess, trees: Mapping[str, int], plan: LayerPlan, *, variant: str, load: str, number: int
) -> tuple[Sample, float]:
    job = {"do": "time", "variant": variant, "in_flight": _IN_FLIGHT[load]}
    before = read(trees)
    answer = caller.ask({**job, "warm_up_s": plan.warm_up_s, "seconds": plan.seconds}, _TIMEOUT_S)
    found = Numbers(**answer["numbers"])
    sample = Sample(
        contender=variant,
        case=load,
        round=number,
        unit="calls",
        items_per_second=found.per_second,
        requests=found,
        cores=cores_between(before, read(trees)),
    )
    return sample, answer["cpu_us"]
