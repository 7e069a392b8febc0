"""Which tests run in which environment, and what a missing program means."""

from __future__ import annotations

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

HAS_TORCH = find_spec("torch") is not None
ON_CI = os.environ.get("CI", "").lower() in ("1", "true")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out files whose imports the running environment does not have.

    With torch, the gateway's packages are missing: only files with a test marked `torch` are read, and folders with
    such a file. Without it, files that are marked as a whole are left out.
    """
    if collection_path.is_dir():
        return (HAS_TORCH and not any(map(_wants_torch, collection_path.rglob("test_*.py")))) or None
    if not collection_path.name.startswith("test_"):
        return None
    if HAS_TORCH:
        return not _wants_torch(collection_path) or None
    text = collection_path.read_text(encoding="utf-8")
    return re.search(r"^pytestmark\b.*\bmark\.torch\b", text, flags=re.MULTILINE) is not None or None


def _wants_torch(file: Path) -> bool:
    return "mark.torch" in file.read_text(encoding="utf-8")


def missing(reason: str) -> NoReturn:
    """Skips a test that lacks something; on CI, where nothing may be lacking, fails it."""
    if ON_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def require_program(name: str, package: str) -> str:
    """The path of the program `name`; see `missing` for what happens without it.

    Args:
        name: The program, as a shell finds it.
        package: What to install to have it.
    """
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed: it comes with {package}")
    return path
