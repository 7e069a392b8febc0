"""Facts about the machine and the environments that affect speed; nothing that identifies the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = {
    "gateway": ("bentoml", "grpcio", "protobuf", "starlette", "orjson", "uvloop", "httptools"),
    "bentos": ("bentoml", "grpcio", "torch", "transformers", "sentence-transformers", "tokenizers"),
    "peers": ("infinity-emb", "torch", "transformers", "sentence-transformers", "tokenizers"),
}
_ASK = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


def facts() -> dict[str, Any]:
    """Processor, cores, memory, system, Python version and commit."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def versions(environment: str, environments: Path) -> dict[str, str]:
    """Versions of the packages that affect speed, in the environment `gateway`, `bentos` or `peers`.

    Args:
        environment: Its name.
        environments: The folder with the Python environments.
    """
    answer = _output([str(environments / environment / "bin/python"), "-c", _ASK, *_PACKAGES[environment]])
    found: dict[str, str] = json.loads(answer)
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    return _output(["git", "-C", str(Path(__file__).parent), *arguments])


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
