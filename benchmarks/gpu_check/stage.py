"""`python -m benchmarks.gpu_check.stage NAME PLAN OUT`: runs one stage in this process and writes its result.

Each stage runs in a separate process, so that a stage that hangs or loses the device does not affect the others.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path

from benchmarks.gpu_check.plan import Plan

_MODULES = {"tests": "suite"}
_NEEDS = {
    "fidelity": ("prometheus_client", "grpc", "pydantic_settings"),
    "throughput": ("prometheus_client", "grpc", "pydantic_settings"),
    "service": ("bentoml", "grpc_health", "aiobreaker"),
    "tests": ("pytest", "pytest_asyncio", "pytest_timeout", "grpc_health"),
}
"""Modules without which a stage is skipped, besides torch and sentence-transformers."""


def missing_modules(name: str) -> list[str]:
    """Modules that the stage needs and that are not installed."""
    return [module for module in _NEEDS.get(name, ()) if importlib.util.find_spec(module) is None]


def main(name: str, plan: str, out: str) -> None:
    """Runs the stage `name` and writes its result as JSON to `out`."""
    module = importlib.import_module(f"benchmarks.gpu_check.{_MODULES.get(name, name)}")
    found = module.run(Plan(**json.loads(plan)))
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
