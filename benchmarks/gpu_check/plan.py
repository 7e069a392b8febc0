"""What is checked, how long each stage may take, and the bounds of the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    device: str
    """Device under test, as in the settings of a model: `cuda`, `cuda:N`; `cpu` for a dry run."""
    weights: str
    """Folder of all-MiniLM-L6-v2, as saved by sentence-transformers."""
    folder: str
    """For the weights that the run makes, and for logs."""
    dtypes: Sequence[str]
    """Types of the weights whose fidelity is measured."""
    timed_dtypes: Sequence[str]
    """Types whose throughput is measured."""
    in_flight: Sequence[int]
    """Requests in flight at the same time."""
    window_s: float
    """Length of one timed window, in seconds."""
    rounds: int
    """Windows of each contender under each load; the medians of their ratios count."""
    texts: int
    """Texts whose vectors are compared; a quarter as many queries, with four documents each, for rerankers."""

    @classmethod
    def full(cls, device: str, weights: str, folder: Path) -> Self:
        """Fits into six minutes with all stages."""
        return cls(
            device=device,
            weights=weights,
            folder=str(folder),
            dtypes=("float32", "bfloat16", "float16"),
            timed_dtypes=("float32", "float16"),
            in_flight=(1, 32, 256, 1024),
            window_s=1.0,
            rounds=2,
            texts=400,
        )

    @classmethod
    def dry(cls, weights: str, folder: Path) -> Self:
        """Runs every line of the check on the CPU, in a few seconds; its throughput means nothing."""
        return cls(
            device="cpu",
            weights=weights,
            folder=str(folder),
            dtypes=("float32", "bfloat16", "float16"),
            timed_dtypes=("float32",),
            in_flight=(1, 4),
            window_s=0.2,
            rounds=1,
            texts=16,
        )

    def to_json(self) -> dict[str, Any]:
        """For a stage in another process, which reads it with `Plan(**found)`."""
        return asdict(self)


STAGES: Mapping[str, float] = {"machine": 30.0, "fidelity": 60.0, "throughput": 110.0, "service": 70.0, "tests": 80.0}
"""The stages in order, each with its time limit in seconds; 350 s together."""

LEAST_COSINE: Mapping[str, float] = {"float32": 0.99999, "float16": 0.9999, "bfloat16": 0.999}
"""Least cosine between a vector and the one that the model computes on the CPU in float32."""
LARGEST_ERROR: Mapping[str, Mapping[str, float]] = {
    "late interaction": {"float32": 0.001, "float16": 0.005, "bfloat16": 0.03},
    # Its weights are random and large, so that rounding counts more than in a trained model.
    "cross-encoder": {"float32": 0.001, "float16": 0.04, "bfloat16": 0.25},
}
"""Largest error of a score by model and dtype, as a share of the standard deviation of all scores of that model."""
LEAST_RATIO: Mapping[int, float] = {1: 0.7, 32: 1.0, 256: 1.0, 1024: 1.0}
"""Least throughput by requests in flight, as a share of the direct call with batches of as many requests."""
