"""The caller: a process that connects every variant and then times one window of one variant per job.

Jobs: `open` (connects; answers the names of the variants) and `time` (one window of one variant; answers `Numbers`,
and the CPU time per call in this process, including gRPC's threads, in microseconds).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

import uvloop

from benchmarks.client_layer.variants import UnexpectedAnswerError, Variant, open_variants, same
from benchmarks.data.inputs import Request
from benchmarks.job_loop import Job, answer_jobs
from benchmarks.load_generator.drive import drive
from benchmarks.load_generator.spans import numbers


class Caller:
    """Holds the variants and answers jobs."""

    def __init__(self) -> None:
        self._opened = AsyncExitStack()
        self._variants: dict[str, Variant[Any]] = {}

    async def answer(self, job: Job) -> Any:
        """Answers one job; see the module."""
        match job["do"]:
            case "open":
                return await self._open(job["addresses"], job["redis_url"])
            case "time":
                return await self._time(self._variants[job["variant"]], job)
        raise ValueError(f"no such job: {job['do']}")

    async def close(self) -> None:
        """Closes all connections."""
        await self._opened.aclose()

    async def _open(self, addresses: list[str], redis_url: str) -> list[str]:
        self._variants = await open_variants(addresses, redis_url, self._opened)
        request = Request(["the same text for every variant"])
        if not same([await variant.answer(request) for variant in self._variants.values()]):
            raise UnexpectedAnswerError("the variants do not return the same vectors")
        return list(self._variants)

    @staticmethod
    async def _time(variant: Variant[Any], job: Job) -> dict[str, Any]:
        before = time.process_time()
        spans = await drive(variant, job["in_flight"], job["warm_up_s"], job["seconds"])
        cpu_us = 1e6 * (time.process_time() - before) / len(spans)
        return {"numbers": asdict(numbers(spans, job["seconds"])), "cpu_us": cpu_us}


def main() -> None:
    """Answers jobs; see the module."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        caller = Caller()
        try:
            answer_jobs(lambda job: runner.run(caller.answer(job)))
        finally:
            runner.run(caller.close())


if __name__ == "__main__":
    main()
