"""Throughput: our batcher in this process, next to the direct call with batches of as many requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from statistics import median
from typing import Any

from benchmarks.data.inputs import Request
from benchmarks.data.texts import passages
from benchmarks.gpu_check import models
from benchmarks.gpu_check.plan import Plan
from benchmarks.load_generator.spans import Numbers, Span, numbers
from benchmarks.plan import Length
from benchmarks.systems.direct_models import DirectModel

_POOL = 4096
_DOCUMENTS = 8
"""Documents of one reranking request."""
_WARM_UP = 0.3
"""Time before a window, as a share of the window."""
_LARGEST_BATCH = 1024
"""Most texts or pairs in one batch of the direct call."""


def run(plan: Plan) -> list[dict[str, Any]]:
    """One row for each model, dtype and load: requests per second of both, their ratio, and latencies."""
    rows = []
    for name in models.NAMES:
        for dtype in plan.timed_dtypes:
            rows += asyncio.run(_measure(name, plan, dtype))
    return rows


async def _measure(name: str, plan: Plan, dtype: str) -> list[dict[str, Any]]:
    direct = models.direct(name, plan, plan.device, dtype)
    async with models.served(name, plan, dtype) as served:
        return [
            {"model": name, "dtype": dtype, "in flight": in_flight}
            | await _compare(plan, in_flight, requests_for(name), served.answer, direct)
            for in_flight in plan.in_flight
        ]


def requests_for(name: str) -> list[Request]:
    """The requests of a model: one short text each, or a query with eight short documents."""
    texts = passages(_POOL, Length.SHORT, seed=7)
    if name == models.EMBEDDING:
        return [Request([text]) for text in texts]
    queries = passages(_POOL // _DOCUMENTS, Length.SHORT, seed=8)
    return [
        Request(texts[_DOCUMENTS * number : _DOCUMENTS * (number + 1)], query) for number, query in enumerate(queries)
    ]


async def _compare(
    plan: Plan,
    in_flight: int,
    requests: Sequence[Request],
    answer: Callable[[Request], Awaitable[object]],
    direct: DirectModel,
) -> dict[str, float]:
    ours: list[Numbers] = []
    theirs: list[float] = []
    for number in range(plan.rounds):
        for contender in ("ours", "direct") if number % 2 else ("direct", "ours"):
            if contender == "ours":
                ours.append(await time_requests(answer, requests, in_flight, plan.window_s))
            else:
                theirs.append(await asyncio.to_thread(_time_direct, direct, requests, in_flight, plan.window_s))
    return {
        "requests/s": round(median(found.per_second for found in ours), 1),
        "direct requests/s": round(median(theirs), 1),
        "ratio": round(median(mine.per_second / other for mine, other in zip(ours, theirs, strict=True)), 3),
        "p50 ms": round(median(found.p50_ms for found in ours), 2),
        "p95 ms": round(median(found.p95_ms for found in ours), 2),
    }


async def time_requests(
    answer: Callable[[Request], Awaitable[object]], requests: Sequence[Request], in_flight: int, window_s: float
) -> Numbers:
    """Throughput and latency with `in_flight` requests at the same time, over one window."""
    opens = time.perf_counter() + _WARM_UP * window_s
    waiting: Iterator[Request] = cycle(requests)
    spans: list[Span] = []

    async def caller() -> None:
        while (sent := time.perf_counter() - opens) < window_s:
            await answer(next(waiting))
            spans.append((sent, time.perf_counter() - opens))

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return numbers(spans, window_s)


def _time_direct(direct: DirectModel, requests: Sequence[Request], together: int, window_s: float) -> float:
    """Requests per second of calls with `together` requests each, one call after another."""
    opens = time.perf_counter() + _WARM_UP * window_s
    waiting: Iterator[Request] = cycle(requests)
    spans: list[Span] = []
    while (sent := time.perf_counter() - opens) < window_s:
        direct([next(waiting) for _ in range(together)], batch=_LARGEST_BATCH)
        spans.append((sent, time.perf_counter() - opens))
    return together * numbers(spans, window_s).per_second
