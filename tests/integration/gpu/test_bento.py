"""The built bento contains what it needs, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.conftest import missing
from tests.integration.gpu.conftest import GPU_PYTHON
from tests.running_stack import ROOT


def test_built_bento_contains_its_files_and_imports_from_them(tmp_path: Path) -> None:
    if not GPU_PYTHON.exists():
        missing(f"there is no environment of the GPU bento: {GPU_PYTHON}")
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    build = [str(GPU_PYTHON), "-m", "bentoml", "build", "-f", "bentos/gpu/bentofile.yaml", "--output", "tag", "."]
    made = subprocess.run(build, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    name, version = made.stdout.strip().splitlines()[-1].removeprefix("__tag__:").split(":")
    source = tmp_path / "home" / "bentos" / name / version / "src"
    packed = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {"bentos/gpu/nvml_driver.py", "bentos/serving/service.py", "configs/gpu.yaml"} <= packed
    ours = ("bentos/__init__.py", "bentos/gpu/", "bentos/serving/", "torchless/", "configs/gpu.yaml")
    left_out = ("bentos/serving/batching", "torchless/cl")
    assert [p for p in packed if p.endswith(".py") and (not p.startswith(ours) or p.startswith(left_out))] == []
    requirements = (source.parent / "env" / "python" / "requirements.txt").read_text()
    assert "nvidia-ml-py==" in requirements
    assert "\ntorch==" not in requirements
    alone = subprocess.run(
        [str(GPU_PYTHON), "-P", "-c", "from bentos.gpu.service import svc; print(svc.name, svc.__module__)"],
        cwd=source,
        env=environment | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.startswith("torchless-gpu")
    dockerfile = (source.parent / "env" / "docker" / "Dockerfile").read_text()
    assert "nvidia/cuda" not in dockerfile
