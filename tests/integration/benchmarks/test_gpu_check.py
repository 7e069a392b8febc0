"""The check of a machine with a GPU, in its dry form: each stage runs on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_check.plan import STAGES
from benchmarks.paths import ROOT

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(300)]


def test_dry_run_passes_every_stage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, Any] = json.loads((tmp_path / "gpu-check.json").read_text())
    assert list(results) == list(STAGES)
    assert {(row["model"], row["dtype"]) for row in results["fidelity"]} == {
        (model, dtype)
        for model in ("embedding", "late interaction", "cross-encoder")
        for dtype in ("float32", "bfloat16", "float16")
    }
    assert all(row["requests/s"] > 0 < row["direct requests/s"] for row in results["throughput"])
    assert len(results["throughput"]) == 6
    assert [(row["model"], row["in flight"]) for row in results["service"]] == [
        (model, load) for model in ("embedding", "late interaction", "cross-encoder") for load in (1, 4)
    ]
    assert all(row["requests/s"] > 0 for row in results["service"])
    assert results["tests"]["failed"] == []
    assert results["tests"]["skipped"] > 5, "the tests marked gpu were not collected"
    report = (tmp_path / "gpu-check.md").read_text()
    assert report in done.stdout
    assert "FAILED" not in report
