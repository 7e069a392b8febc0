"""The load generator: a process that sends requests to one service per job.

Jobs: `answer` (the answers, to compare them with the direct call's) and `time` (the spans of one window).
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import uvloop

from benchmarks.data.inputs import Request
from benchmarks.job_loop import Job, answer_jobs
from benchmarks.load_generator.drive import drive
from benchmarks.load_generator.senders import open_sender


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
