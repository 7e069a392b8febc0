"""The trace of a request: files, calls and moves."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.paths import ROOT
from benchmarks.request_path.trace import Trace

FIRST = """
from traced import second

def outer():
    inner()
    second.leaf()
    second.leaf()
    return inner()

def inner():
    pass

async def waits():
    await second.pauses()
"""
SECOND = """
import asyncio

def leaf():
    pass

async def pauses():
    await asyncio.sleep(0)
    leaf()
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two files in the folder `traced`."""
    (tmp_path / "traced").mkdir()
    (tmp_path / "traced/first.py").write_text(FIRST)
    (tmp_path / "traced/second.py").write_text(SECOND)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("traced", "traced.first", "traced.second"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_trace_counts_files_calls_and_moves(checkout: Path) -> None:
    first = importlib.import_module("traced.first")
    with Trace(checkout, ["traced"]) as trace:
        first.outer()
    assert trace.files == {"traced/first.py": 3, "traced/second.py": 2}
    assert trace.stops == ["traced/first.py", "traced/second.py", "traced/first.py"]
    assert trace.moves == 2


async def test_trace_counts_a_coroutine_that_continues(checkout: Path) -> None:
    first = importlib.import_module("traced.first")
    with Trace(checkout, ["traced"]) as trace:
        await first.waits()
    begins, continues = ["traced/first.py", "traced/second.py"], ["traced/first.py", "traced/second.py"]
    assert trace.stops == begins + continues
    assert trace.files == {"traced/first.py": 2, "traced/second.py": 3}


def test_trace_leaves_out_other_folders_and_what_runs_before_and_after(checkout: Path) -> None:
    first = importlib.import_module("traced.first")
    first.outer()
    with Trace(checkout, ["gateway"]) as trace:
        first.outer()
    first.outer()
    assert trace.calls == []
    assert trace.moves == 0


def test_request_path_counts_three_requests_through_the_gateway() -> None:
    command = [sys.executable, "-m", "benchmarks.request_path", "--files"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    rows = [line for line in answer.stdout.splitlines() if line.startswith("│ POST")]
    assert len(rows) == 3
    for row in rows:
        files, moves, calls = (int(cell) for cell in row.split("│")[2:5])
        assert 5 < files < moves < calls
    assert "  torchless/clients/cache/embedding.py" in answer.stdout
