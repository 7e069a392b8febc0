"""Rules on packages that import contracts in `pyproject.toml` cannot express."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("torchless", "gateway", "bentos", "demo", "benchmarks", "tests")
TORCH_FREE = ("torchless", "gateway")
HEAVY = ("torch", "transformers", "sentence_transformers")
MEANINGLESS = {"utils", "helpers", "common", "misc"}

IMPORT_ALL = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def sources(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", TORCH_FREE)
def test_modules_of_torch_free_packages_import_without_torch(package: str) -> None:
    modules = [module_name(path) for path in sources(package) if path.name != "__main__.py"]
    command = [sys.executable, "-c", IMPORT_ALL, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert len(modules) > 10
    assert set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY) == set()


def test_gateway_environment_has_no_torch() -> None:
    installed = {distribution.name.lower().replace("_", "-") for distribution in distributions()}

    assert installed & {"torch", "torchvision", "transformers", "sentence-transformers", "triton"} == set()
    assert {name for name in installed if name.startswith(("nvidia-", "cuda-"))} <= {"nvidia-ml-py"}


def test_torch_is_imported_only_by_files_named_torch() -> None:
    importing = [path.relative_to(ROOT) for path in sources("bentos") if imported(path) & set(HEAVY)]

    assert importing, "the check reads the wrong folder"
    assert [str(path) for path in importing if not path.name.startswith("torch_")] == []


def test_no_module_has_a_meaningless_name() -> None:
    named = [
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.stem in MEANINGLESS
    ]

    assert named == []
