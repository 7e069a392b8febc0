"""What the import contracts in `pyproject.toml` cannot say."""

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
ROOMS = ("torchless", "gateway", "bentos", "demo", "benchmarks", "tests")
TORCH_FREE = ("torchless", "gateway")
HEAVY = ("torch", "transformers", "sentence_transformers")
SAY_NOTHING = {"utils", "helpers", "common", "misc"}

IMPORT_ALL = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def sources(room: str) -> Iterator[Path]:
    return (ROOT / room).rglob("*.py")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("room", TORCH_FREE)
def test_every_module_of_a_torch_free_room_imports_without_torch(room: str) -> None:
    modules = [module_name(path) for path in sources(room) if path.name != "__main__.py"]
    command = [sys.executable, "-c", IMPORT_ALL, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert len(modules) > 10
    assert set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY) == set()


def test_the_gateways_environment_has_no_torch() -> None:
    installed = {distribution.name.lower().replace("_", "-") for distribution in distributions()}

    assert installed & {"torch", "torchvision", "transformers", "sentence-transformers", "triton"} == set()
    assert {name for name in installed if name.startswith(("nvidia-", "cuda-"))} <= {"nvidia-ml-py"}


def test_torch_is_imported_only_by_files_named_after_it() -> None:
    importing = [path.relative_to(ROOT) for path in sources("bentos") if imported(path) & set(HEAVY)]

    assert importing, "the check looks in the wrong place"
    assert [str(path) for path in importing if not path.name.startswith("torch_")] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    named = [path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.stem in SAY_NOTHING]

    assert named == []
