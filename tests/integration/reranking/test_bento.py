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
    build = [sys.executable, "-m", "bentoml", "build", "-f", "bentos/reranking/bentofile.yaml", "--output", "tag", "."]
    made = subprocess.run(build, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    name, version = made.stdout.strip().splitlines()[-1].removeprefix("__tag__:").split(":")
    source = tmp_path / "home" / "bentos" / name / version / "src"
    packed = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    needed = {"torch_model.py", "torch_cross_encoder.py", "torch_late_interaction.py", "tokenization.py"}
    assert {f"bentos/reranking/{file}" for file in needed} <= packed
    assert {"bentos/models/pool.py", "bentos/serving/service.py", "configs/reranking.yaml"} <= packed
    strangers = ("gateway", "tests", "benchmarks", "demo", "torchless/cli/", "bentos/embedding", "bentos/gpu/")
    assert [path for path in packed if path.startswith(strangers)] == []
    # Of the clients that of the GPU service, for leases.
    clients = {path.removeprefix("torchless/clients/") for path in packed if path.startswith("torchless/clients/")}
    assert clients & {"gpu.py", "embedding.py", "reranking.py"} == {"gpu.py"}
    requirements = (source.parent / "env" / "python" / "requirements.txt").read_text()
    assert "torch==2.13.0" in requirements
    assert "sentence-transformers==" in requirements
    # The files with torch as well, which the service itself imports only where it serves.
    script = "import bentos.reranking.torch_model; from bentos.reranking.service import svc; print(svc.name)"
    alone = subprocess.run(
        [sys.executable, "-c", script],
        cwd=source,
        env={**environment, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.strip() == "torchless-reranking"
