"""The built bento contains what it needs, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[3]


def test_built_bento_contains_its_files_and_imports_from_them(tmp_path: Path) -> None:
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    build = [sys.executable, "-m", "bentoml", "build", "-f", "bentos/embedding/bentofile.yaml", "--output", "tag", "."]
    made = subprocess.run(build, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    name, version = made.stdout.strip().splitlines()[-1].removeprefix("__tag__:").split(":")
    source = tmp_path / "home" / "bentos" / name / version / "src"
    packed = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {"bentos/embedding/torch_model.py", "bentos/serving/service.py", "configs/embedding.yaml"} <= packed
    foreign = [p for p in packed if p.startswith(("gateway", "tests", "benchmarks", "demo", "torchless/cli/"))]
    assert foreign == []
    clients = {p for p in packed if p.startswith("torchless/clients/")}
    assert "torchless/clients/gpu.py" in clients
    assert clients.isdisjoint({"torchless/clients/embedding.py", "torchless/clients/reranking.py"})
    requirements = (source.parent / "env" / "python" / "requirements.txt").read_text()
    assert "torch==2.13.0" in requirements
    alone = subprocess.run(
        [sys.executable, "-c", "from bentos.embedding.service import svc; print(svc.name, svc.__module__)"],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.startswith("torchless-embedding")
