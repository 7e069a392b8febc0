"""Generates the stubs next to this file from `protos/`; with `--check`, reports stubs that are out of date.

    python -m torchless.contracts.generate [--check]

The protos keep the path of their package (`torchless/embedding/v1`), as generators of other languages expect. The
Python stubs live in this package, so their imports are rewritten after generation.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
PROTOS = HERE / "protos"
# Only module names: the service names in the stubs ("/torchless.embedding.v1...") belong to the contract.
_OUR_MODULE = re.compile(r"\btorchless\.(?=[\w.]+_pb2\b|[\w.]+ import \w+_pb2\b)")


def generate(target: Path) -> None:
    """Writes the messages, services and type stubs of every proto below `target`."""
    from grpc_tools import protoc

    sources = sorted(str(p.relative_to(PROTOS)) for p in PROTOS.rglob("*.proto"))
    google_rpc = _parent_of("google.rpc.status_pb2", levels=3)
    well_known = _parent_of("grpc_tools.protoc", levels=1) / "_proto"
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [f"--{kind}_out={scratch}" for kind in ("python", "mypy", "grpc_python", "mypy_grpc")]
        # This environment may not be on the shell's PATH.
        programs = Path(sys.executable).parent
        plugins = [f"--plugin={programs}/protoc-gen-{kind}" for kind in ("mypy", "mypy_grpc")]
        arguments = ["protoc", f"-I{PROTOS}", f"-I{google_rpc}", f"-I{well_known}", *plugins, *outputs, *sources]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc refused the protos; see its message above")
        made = Path(scratch) / "torchless"
        for path in sorted(made.rglob("*.py*")):
            text = path.read_text()
            if "_pb2_grpc" in path.name and "Stub" not in text:
                continue  # messages without a service
            goal = target / path.relative_to(made)
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_text(_OUR_MODULE.sub("torchless.contracts.", text))


def _parent_of(module: str, levels: int) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{module} is not installed: install the extra `test`")
    return Path(spec.origin).parents[levels - 1]


def stale(target: Path = HERE) -> list[str]:
    """Relative paths of the stubs below `target` that are out of date; empty if all are current."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        wanted = {p.relative_to(fresh) for p in fresh.rglob("*_pb2*.py*")}
        present = {p.relative_to(target) for p in target.rglob("*_pb2*.py*")}
        differing = {p for p in wanted & present if (fresh / p).read_bytes() != (target / p).read_bytes()}
        return sorted(str(p) for p in (wanted ^ present) | differing)


def main() -> None:
    """Generates the stubs, or with `--check` exits 1 and names the stubs that are out of date."""
    if "--check" not in sys.argv[1:]:
        generate(HERE)
    elif names := stale():
        raise SystemExit("stubs are out of date, run `make stubs`: " + ", ".join(names))


if __name__ == "__main__":
    main()
