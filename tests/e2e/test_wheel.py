"""The wheel in a fresh environment, as other teams install it, against the running services.

The services keep the protobuf and grpcio that BentoML's gRPC server needs; a client need not.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any
from zipfile import Path as ZipPath

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import missing
from tests.running_stack import ROOT, RunningStack
from torchless.cli.free_ports import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PROGRAM = Path(__file__).with_name("installed_client.py")
NOTHING_OFFERED = "from versions: none"
"""What pip says of every package when it reaches no registry."""
NEWEST_MINOR = 14
"""`x` of the newest Python 3.x that the client library supports."""


def pip(*arguments: str | Path) -> None:
    """Runs pip; without a registry, the test is skipped (on CI it fails)."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if NOTHING_OFFERED in done.stderr:
        missing("no package registry can be reached, so the wheel cannot be installed in a fresh environment")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves files in the source folder."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "torchless", source / "torchless", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", built, source)
    (found,) = built.glob("torchless-*.whl")
    return found


def requirements(wheel: Path) -> list[Requirement]:
    """What the wheel requires without extras."""
    (info,) = (entry for entry in ZipPath(wheel).iterdir() if entry.name.endswith(".dist-info"))
    found = [Requirement(text) for text in PathDistribution(info).requires or []]  # type: ignore[arg-type]  # as on disk
    return [requirement for requirement in found if requirement.marker is None]


def oldest(requirement: Requirement) -> str:
    """`requirement` at the oldest version that it allows."""
    (floor,) = (bound.version for bound in requirement.specifier if bound.operator in {">=", "=="})
    extras = f"[{','.join(requirement.extras)}]" if requirement.extras else ""
    return f"{requirement.name}{extras}=={floor}"


def newest_python() -> str:
    """The newest supported Python that runs here; at least this one."""
    for minor in range(NEWEST_MINOR, sys.version_info.minor, -1):
        program = shutil.which(f"python3.{minor}")
        if program is not None and runs(program):
            return program
    return sys.executable


def runs(python: str) -> bool:
    """Whether `python` is more than a version manager's note that such a version could be chosen."""
    return subprocess.run([python, "-c", ""], capture_output=True, timeout=60, check=False).returncode == 0


def answers(python: str, installed: list[str], folder: Path, stack: RunningStack) -> dict[str, Any]:
    """What the program prints in a new environment of `python` that holds `installed`."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    program = str(folder / "bin/python")
    pip("--python", program, "install", "--quiet", "--prefer-binary", *installed)
    (closed,) = free_ports(1)
    addresses = [stack.addresses["embedding"], stack.addresses["reranking"], f"127.0.0.1:{closed}"]
    command = [program, "-W", "error", "-I", str(PROGRAM), *addresses]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert Path(found.pop("file")).is_relative_to(folder)
    return found


def check(found: dict[str, Any]) -> None:
    assert found["modules"] > 30
    assert found["ready"] == [True, True]
    assert found["shape"] == [2, 384]
    assert found["order"] == [1, 0]
    assert found["refusal"]["kind"] == "INPUT_TOO_LARGE"
    assert found["refusal"]["violations"]["texts[1]"].startswith("has 302 tokens; the model reads at most 256")
    assert found["breaker"] == ["UNREACHABLE", "CIRCUIT_OPEN"]


def test_wheel_calls_the_services_with_the_newest_versions(wheel: Path, running: RunningStack, tmp_path: Path) -> None:
    found = answers(newest_python(), [str(wheel)], tmp_path / "environment", running)
    check(found)
    assert Version(found["versions"]["protobuf"]).major == 6
    assert Version(found["versions"]["grpcio"]) >= Version("1.72")


def test_wheel_calls_the_services_with_the_oldest_versions(wheel: Path, running: RunningStack, tmp_path: Path) -> None:
    floors = [oldest(requirement) for requirement in requirements(wheel)]
    found = answers(sys.executable, [str(wheel), *floors], tmp_path / "environment", running)
    check(found)
    assert found["versions"] == {"protobuf": "5.29.1", "grpcio": "1.71.2"}


def test_wheel_holds_the_types_and_the_protos(wheel: Path) -> None:
    names = {str(entry) for entry in ZipPath(wheel).joinpath("torchless").iterdir()}
    assert f"{wheel}/torchless/py.typed" in names
    protos = ZipPath(wheel) / "torchless/contracts/protos/torchless"
    assert (protos / "embedding/v1/embedding.proto").is_file()


def test_wheel_holds_the_licence_and_the_notice(wheel: Path) -> None:
    (info,) = (entry for entry in ZipPath(wheel).iterdir() if entry.name.endswith(".dist-info"))
    assert "License-Expression: Apache-2.0" in (info / "METADATA").read_text().splitlines()
    for name in ("LICENSE", "NOTICE"):
        assert (info / "licenses" / name).read_text() == (ROOT / name).read_text()
