"""The clients of one checkout: a process that times one window of one way to call per job.

`python -m benchmarks.comparison.caller CHECKOUT ADDRESS`, where an instant service listens. Job: `variant`,
`in_flight`, `warm_up_s`, `seconds`; answers figures by name.

Uses only what the clients of both checkouts have.
"""

from __future__ import annotations

import sys

sys.path.insert(0, sys.argv[1])  # before the first import of `torchless`

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import uvloop

from benchmarks.comparison.variants import CLIENT, HIT, MISS
from benchmarks.job_loop import Job, answer_jobs
from benchmarks.load_generator.drive import drive
from benchmarks.load_generator.spans import numbers
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.embedding import EmbeddingClient

_TEXT = "The harbour pilot measured the spare valves before the storm."


class _Sender:
    def __init__(self, call: Callable[[list[str]], Awaitable[Any]], text: Callable[[], str]) -> None:
        self._call = call
        self._text = text

    async def send(self, connection: int, number: int) -> None:
        await self._call([self._text()])


async def _open(address: str) -> dict[str, _Sender]:
    client, numbered = EmbeddingClient(address), count()
    misses, hits = EmbeddingCache(client, CacheSettings()), EmbeddingCache(client, CacheSettings())
    return {
        CLIENT: _Sender(client.embed, lambda: _TEXT),
        MISS: _Sender(misses.embed, lambda: f"{_TEXT} {next(numbered)}"),
        HIT: _Sender(hits.embed, lambda: _TEXT),
    }


async def _time(sender: _Sender, job: Job) -> dict[str, float]:
    before = time.process_time()
    spans = await drive(sender, job["in_flight"], job["warm_up_s"], job["seconds"])
    cpu_us = 1e6 * (time.process_time() - before) / len(spans)
    found = numbers(spans, job["seconds"])
    return {"requests/s": found.per_second, "p50 ms": found.p50_ms, "CPU µs per request": cpu_us}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        senders = runner.run(_open(sys.argv[2]))
        answer_jobs(lambda job: runner.run(_time(senders[job["variant"]], job)))
