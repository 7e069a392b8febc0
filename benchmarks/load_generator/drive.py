"""Keeps a fixed number of requests in flight, and notes when each was sent and answered."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol

from benchmarks.load_generator.spans import Span


class Sends(Protocol):
    """Sends numbered requests."""

    async def send(self, connection: int, number: int) -> None:
        """Sends request `number` over a connection with no other request in flight, and waits for the response."""


async def drive(sender: Sends, in_flight: int, warm_up_s: float, seconds: float) -> list[Span]:
    """Keeps `in_flight` requests in flight during a warm-up and a window; each response is followed by a new request.

    The window opens after the warm-up, but only when each of the first `in_flight` requests is answered: they were sent
    at the same moment, and a window that counts some of them would count more than its share.

    The first failure ends the run, because figures without the failed requests would be wrong.

    Returns:
        When each request was sent and answered, in seconds after the window opened.
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
            await asyncio.sleep(0)  # a request that is answered at once must not keep the others from sending

    async with asyncio.TaskGroup() as group:
        for number in range(in_flight):
            group.create_task(connection(number))
    return [(sent - opens, done - opens) for sent, done in spans]
