"""Fidelity: the answers on the device in each dtype, compared with the model called on the CPU in float32."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.inputs import Request
from benchmarks.data.texts import passages
from benchmarks.gpu_check import models
from benchmarks.gpu_check.plan import Plan
from benchmarks.measurement.differences import least_cosine
from benchmarks.plan import Length

_ODD = ("a", "Größe, œuvre, 東京の春", "🙂🙂", "x" * 300, "one two three " * 400)
"""Very short, not English, rare characters, one long word, longer than the model reads."""
_ALONE = 8
"""Requests that are sent once more, one at a time: their batches hold nothing else."""


def run(plan: Plan) -> list[dict[str, Any]]:
    """One row for each model and dtype.

    For embedding, `cosine` is the least cosine to the reference. For rerankers, `error` is the largest difference
    between two scores, as a share of the standard deviation of the reference's scores.
    """
    rows = []
    for name in models.NAMES:
        requests = _requests(name, plan.texts)
        reference = models.direct(name, plan, "cpu", "float32")(requests, batch=32)
        for dtype in plan.dtypes:
            found = asyncio.run(_answers(name, plan, dtype, requests))
            figure = _compare(name, found, reference, rows_each=len(requests[0].texts))
            rows.append({"model": name, "dtype": dtype, "answers": len(reference), **figure})
    return rows


def _requests(name: str, texts: int) -> list[Request]:
    pool = [*_ODD, *passages(texts * 3 // 4, Length.SHORT, seed=5), *passages(texts // 4, Length.LONG, seed=5)]
    if name == models.EMBEDDING:
        return [Request([text]) for text in pool]
    queries = passages(texts // 4, Length.SHORT, seed=6)
    return [
        Request([pool[(4 * number + index) % len(pool)] for index in range(4)], query)
        for number, query in enumerate(queries)
    ]


async def _answers(
    name: str, plan: Plan, dtype: str, requests: Sequence[Request]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All answers in large batches, and those of the first requests one at a time."""
    async with models.served(name, plan, dtype) as served:
        together = await asyncio.gather(*(served.answer(request) for request in requests))
        alone = [await served.answer(request) for request in requests[:_ALONE]]
    return np.concatenate(together), np.concatenate(alone)


def _compare(
    name: str,
    found: tuple[NDArray[np.float32], NDArray[np.float32]],
    reference: NDArray[np.float32],
    *,
    rows_each: int,
) -> dict[str, float]:
    together, alone = found
    first = reference[: _ALONE * rows_each]
    if name == models.EMBEDDING:
        return {"cosine": min(least_cosine(together, reference), least_cosine(alone, first))}
    errors = [float(np.max(np.abs(scores - wanted))) for scores, wanted in ((together, reference), (alone, first))]
    return {"error": max(errors) / float(np.std(reference))}
