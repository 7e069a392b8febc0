"""Writes the lock files from `pyproject.toml` and the `.in` files, keeping versions that still fit.

    python -m requirements.lock [--upgrade]

pip-compile chooses the versions from the configured index of pip; the lock files do not mention the index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock file."""

    path: str
    """Path from the root."""
    extras: tuple[str, ...] = ()
    """Extras of `pyproject.toml` in addition to the dependencies of the project."""
    source: str = "pyproject.toml"
    """Its source. A source other than `pyproject.toml` is for programs that are only tested or compared with."""
    agrees_with: str | None = None
    """A lock whose versions this one uses."""


def _of_bentos() -> Iterator[Lock]:
    """One lock for each bento: of the extra with its name, or else of `models`, which all share their versions."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for file in sorted(ROOT.glob("bentos/*/bentofile.yaml")):
        name, path = file.parent.name, f"bentos/{file.parent.name}/requirements.txt"
        if name in extras:
            yield Lock(path, (name,))
        else:
            yield Lock(path, ("models",), agrees_with=None if path == _MODELS else _MODELS)


_MODELS = "bentos/embedding/requirements.txt"
LOCKS = (
    *_of_bentos(),
    # The GPU service's versions, because the gateway's environment runs the tests of both: docs/decisions/0016.
    Lock("requirements/gateway.txt", ("gateway", "cli"), agrees_with="bentos/gpu/requirements.txt"),
    Lock("requirements/gateway-test.txt", ("gateway", "cli", "gpu", "test"), agrees_with="requirements/gateway.txt"),
    Lock("requirements/bentos-test.txt", ("models", "test"), agrees_with=_MODELS),
    Lock("requirements/peers.txt", source="requirements/peers.in"),
    Lock("requirements/clients.txt", source="requirements/clients.in"),
)

OF_A_CUDA_BUILD = re.compile(r"(nvidia-(?!ml-py\b)|triton\b|cuda-)")
"""Start of the names of packages that only a CUDA build of torch requires. nvidia-ml-py is not one of them: BentoML
requires it, and it is pure Python over the driver's NVML, without CUDA."""

_HEADER = """\
# Written by `make lock` from {source} for Python 3.11 on Linux; do not edit.
# The source explains unusual versions.
"""
_TORCH_HEADER = """\
# torch has no local version such as +cpu here, and the nvidia-*, cuda-* and triton packages are left out, because the
# build depends on the machine. Install torch first, `pip install torch==<as below>`; a CUDA build brings them too.
"""


def compile_lock(lock: Lock, *, upgrade: bool) -> None:
    """Runs pip-compile for one lock and formats the result."""
    command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--strip-extras", "--allow-unsafe"]
    command += ["--no-header", "--no-emit-options", "--no-emit-index-url", "--no-emit-find-links"]
    command += ["--no-emit-trusted-host", *(f"--extra={extra}" for extra in lock.extras)]
    if lock.agrees_with is not None:
        command.append(f"--constraint={lock.agrees_with}")
    if upgrade:
        command.append("--upgrade")
    command += [f"--output-file={lock.path}", lock.source]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})  # noqa: S603
    path = ROOT / lock.path
    path.write_text(in_our_form(path.read_text(), lock))


def in_our_form(compiled: str, lock: Lock) -> str:
    """The output of pip-compile under our header, without lines that depend on the build of torch."""
    entries = re.split(r"^(?=[A-Za-z0-9])", compiled, flags=re.MULTILINE)[1:]
    kept = [entry for entry in entries if not OF_A_CUDA_BUILD.match(entry)]
    body = re.sub(r"^(torch==[^+\s]+)\+\S+", r"\1", "".join(kept), flags=re.MULTILINE)
    note = _TORCH_HEADER if re.search(r"^torch==", body, flags=re.MULTILINE) else ""
    extras = f" (extras: {', '.join(lock.extras)})" if lock.extras else ""
    return _HEADER.format(source=lock.source + extras) + note + body


def main() -> None:
    """Writes every lock; a lock comes after the lock it agrees with."""
    for lock in LOCKS:
        print(f"==> {lock.path}", flush=True)
        compile_lock(lock, upgrade="--upgrade" in sys.argv[1:])


if __name__ == "__main__":
    main()
