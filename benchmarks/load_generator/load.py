"""The load generator: a process that keeps a fixed number of requests in flight.

Jobs: `answer` (for comparing with the direct call) and `time` (spans of requests).
"""

from __future__ import annotations

import asyncio
import base64
import math
import time
from typing import Any

import numpy as np
import uvloop

from benchmarks.data.inputs import Request
from benchmarks.job_loop import Job, answer_jobs
from benchmarks.load_generator.senders import Sender, open_sender
from benchmarks.load_generator.spans import Span


async def drive(sender: Sender, in_flight: int, warm_up_s: float, seconds: float) -> list[Span]:
    """Keeps `in_flight` requests in flight for warm-up and window, each sent as soon as the one before it is answered.

    The window opens after the warm-up, and not before each of the requests that were sent at once at its beginning is
    answered: counted in part, those that are served last would stand for more than was done.

    The first failure ends the run with it: a number that leaves requests out would not be one.
    """
    earliest, opens = time.perf_counter() + warm_up_s, math.inf
    spans: list[Span] = []
    unanswered = set(range(in_flight))

    async def connection(number: int) -> None:
        nonlocal opens
        current = number
        while (sent := time.perf_counter()) < opens + seconds:
            await sender.send(number, current)
            spans.append((sent, done := time.perf_counter()))
            unanswered.discard(number)
            if not unanswered:
                opens = min(opens, max(earliest, done))
            current += in_flight
            await asyncio.sleep(0)  # one that is answered at once must not keep the others from sending

    async with asyncio.TaskGroup() as group:
        for number in range(in_flight):
            group.create_task(connection(number))
    return [(sent - opens, done - opens) for sent, done in spans]


async def _answer(job: Job) -> Any:
    requests = [Request(**request) for request in job["requests"]]
    sender = await open_sender(job["target"], requests, job["in_flight"])
    try:
        if job["do"] == "answer":
            found = np.concatenate([await sender.answer(request) for request in requests])
            return base64.b64encode(np.ascontiguousarray(found, dtype="<f4").tobytes()).decode()
        return await drive(sender, job["in_flight"], job["warm_up_s"], job["seconds"])
    finally:
        await sender.close()


def main() -> None:
    """Answers jobs; see the module."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer_jobs(lambda job: runner.run(_answer(job)))


if __name__ == "__main__":
    main()
