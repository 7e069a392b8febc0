"""The gateway bento built by `bentoml build`: complete, and without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from requirements.lock import OF_A_CUDA_BUILD
from tests.architecture.test_locks import OF_TORCH, pins_in
from tests.architecture.test_packages import HEAVY, ROOT, imported


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bento built from this checkout."""
    home = tmp_path_factory.mktemp("bentoml")
    environment = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "build", "."]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [folder] = (home / "bentos/torchless-gateway").glob("*/")
    return folder


def test_requirements_of_the_bento_are_the_lock_of_the_gateway(bento: Path) -> None:
    packed = pins_in((bento / "env/python/requirements.txt").read_text())

    assert packed == pins_in((ROOT / "requirements/gateway.txt").read_text())
    assert [name for name in packed if OF_TORCH.fullmatch(name) or OF_A_CUDA_BUILD.match(name)] == []


def test_no_file_of_the_bento_imports_torch_or_a_bento(bento: Path) -> None:
    packed = list((bento / "src").rglob("*.py"))

    assert len(packed) > 30
    assert {path.relative_to(bento / "src").parts[0] for path in packed} == {"gateway", "torchless"}
    assert {name for path in packed for name in imported(path)} & {*HEAVY, "bentos"} == set()


def test_bento_contains_no_weights(bento: Path) -> None:
    assert [path for path in bento.rglob("*") if path.suffix in {".safetensors", ".bin", ".pt", ".onnx"}] == []


def test_packed_files_are_enough_to_load_the_gateway(bento: Path) -> None:
    load = "import gateway.service, gateway.app, sys; print(gateway.app.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", load],
        cwd=bento / "src",
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).resolve().is_relative_to(bento.resolve())
