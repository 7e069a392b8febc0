"""The tests marked `gpu`, as many as the installed packages allow."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # reads a report that pytest has just written

from benchmarks.gpu_check.plan import STAGES, Plan
from benchmarks.paths import ROOT

_ENDS_BEFORE_S = 5.0
_WITHOUT_BENTOML = ("tests/integration/embedding/test_torch_model.py", "tests/integration/gpu/test_nvml_driver.py")


def run(plan: Plan) -> dict[str, Any]:
    """Counts of tests by outcome, and the names of the failed tests."""
    targets = ["tests/integration"] if find_spec("bentoml") else list(_WITHOUT_BENTOML)
    report = Path(plan.folder) / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    # Outside CI a missing program skips its test.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [*command, *targets],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=STAGES["tests"] - _ENDS_BEFORE_S,
        check=False,
    )
    if not report.exists():
        raise RuntimeError(f"pytest wrote no report:\n{(done.stdout + done.stderr)[-2000:]}")
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "skipped": len(skipped),
        "failed": [f"{case.get('classname')}.{case.get('name')}" for case in failed],
        "without bentoml": find_spec("bentoml") is None,
    }
