"""The machine: card, versions, and the speed of its matrix product."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import sentence_transformers  # type: ignore[import-not-found, unused-ignore]  # checked without torch, too
import torch  # type: ignore[import-not-found, unused-ignore]
import transformers  # type: ignore[import-not-found, unused-ignore]

from benchmarks.gpu_check.plan import Plan

_TIMED_S = 0.5


def run(plan: Plan) -> dict[str, Any]:
    """Facts about the machine, and TFLOP/s of a square matrix product by dtype."""
    on_gpu = plan.device != "cpu"
    size = 8192 if on_gpu else 256
    facts: dict[str, Any] = {
        "device": torch.cuda.get_device_name(plan.device) if on_gpu else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence-transformers": sentence_transformers.__version__,
    }
    if on_gpu:
        free, total = torch.cuda.mem_get_info(plan.device)
        facts |= {"cuda": torch.version.cuda, "memory GiB": round(total / 2**30, 1), "free GiB": round(free / 2**30, 1)}
    facts["matrix product TFLOP/s"] = {dtype: _teraflops(plan.device, dtype, size) for dtype in plan.dtypes}
    return facts


def _teraflops(device: str, dtype: str, size: int) -> float:
    matrix = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    _synchronize(device)
    count, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < _TIMED_S or not count:
        matrix @ matrix
        _synchronize(device)
        count += 1
    return round(2 * size**3 * count / seconds / 1e12, 3)


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
