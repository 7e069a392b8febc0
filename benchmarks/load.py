"""The load generator: a process that keeps a fixed number of requests in flight.

Jobs: `vectors` (one answer, for comparing with the direct call) and `time` (spans of requests).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import uvloop

from benchmarks.answering import Job, answer_jobs
from benchmarks.senders import GRPCSender, HTTPSender, Sender
from benchmarks.spans import Span


async def drive(sender: Sender, in_flight: int, warm_up_s: float, seconds: float) -> list[Span]:
    """Keeps `in_flight` requests in flight for warm-up and window, each sent as soon as the one before it is answered.

    The first failure ends the run with it: a number that leaves requests out would not be one.
    """
    opens = time.perf_counter() + warm_up_s
    spans: list[Span] = []

    async def lane(number: int) -> None:
        current = number
        while (sent := time.perf_counter() - opens) < seconds:
            await sender.send(number, current)
            spans.append((sent, time.perf_counter() - opens))
            current += in_flight

    async with asyncio.TaskGroup() as group:
        for number in range(in_flight):
            group.create_task(lane(number))
    return spans


async def _answer(job: Job) -> Any:
    texts: list[str] = job["texts"]
    size = job.get("texts_per_request", 1)
    sender = await _sender(job["target"], [texts[i : i + size] for i in range(0, len(texts), size)], job["in_flight"])
    try:
        if job["do"] == "vectors":
            vectors = await sender.vectors(texts)
            return base64.b64encode(np.ascontiguousarray(vectors, dtype="<f4").tobytes()).decode()
        return await drive(sender, job["in_flight"], job["warm_up_s"], job["seconds"])
    finally:
        await sender.close()


async def _sender(target: dict[str, Any], requests: Sequence[Sequence[str]], lanes: int) -> Sender:
    if target["protocol"] == "grpc":
        return GRPCSender(f"127.0.0.1:{target['port']}", requests)
    sender = HTTPSender(target["path"], target["encoding"], target["model"], requests)
    await sender.connect(target["port"], lanes)
    return sender


def main() -> None:
    """Answers jobs; see the module."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer_jobs(lambda job: runner.run(_answer(job)))


if __name__ == "__main__":
    main()
