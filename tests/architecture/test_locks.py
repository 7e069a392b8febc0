"""The lock files say what their sources ask for, and the gateway's holds nothing of torch.

Without the network: what is installed is what a lock says, and what is installed knows what it needs.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from requirements.lock import LOCKS, OF_A_CUDA_BUILD, ROOT, Lock

GATEWAY = [lock for lock in LOCKS if "gateway" in lock.extras]
IN_ITS_ENVIRONMENT = [
    # The tests' tools bring what the GPU service needs into the gateway's environment.
    pytest.param(lock, id=lock.path, marks=(pytest.mark.torch,) if "models" in lock.extras else ())
    for lock in LOCKS
    if lock.source == "pyproject.toml"
]
OF_OTHERS = [pytest.param(lock, id=lock.path) for lock in LOCKS if lock.source != "pyproject.toml"]
EVERY_LOCK = [pytest.param(lock, id=lock.path) for lock in LOCKS]
# nvidia-ml-py is not among them: BentoML asks for it, and it is pure Python over the driver's NVML, without CUDA.
OF_TORCH = re.compile(r"torch|torchvision|torchaudio|transformers|sentence-transformers|" + OF_A_CUDA_BUILD.pattern)


def pins(lock: Lock) -> dict[str, str]:
    """What a lock holds, name to version."""
    return pins_in((ROOT / lock.path).read_text())


def pins_in(text: str) -> dict[str, str]:
    """The lines of a lock, name to version; fails at a line that is anything else."""
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pin = re.fullmatch(r"([a-z0-9][a-z0-9-]*)==([0-9][0-9a-z.]*)", line)
        assert pin is not None, f"a lock may hold `name==version` lines only, not {line!r}"
        found[pin[1]] = pin[2]
    return found


def asked_for(lock: Lock) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(r) for r in project["dependencies"] + [r for extra in lock.extras for r in extras[extra]]]


def needed(requirements: list[Requirement]) -> Iterator[tuple[Requirement, str]]:
    """Every requirement reached from `requirements` that holds here, with the installed version of its package."""
    waiting, seen = list(requirements), set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            pytest.fail(f"{requirement} is needed and not installed: run `make lock`, then `make test`")
        yield requirement, installed.version
        extras = requirement.extras or {""}
        for text in installed.requires or []:
            below = Requirement(text)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(below)


@pytest.mark.parametrize("lock", IN_ITS_ENVIRONMENT)
def test_a_lock_holds_what_the_project_needs_and_nothing_else(lock: Lock) -> None:
    versions: dict[str, str] = {}
    for requirement, installed in needed(asked_for(lock)):
        assert requirement.specifier.contains(installed, prereleases=True), (
            f"{requirement} is asked for and {installed} is locked: run `make lock`"
        )
        # A local version such as +cpu is the machine's affair.
        versions[canonicalize_name(requirement.name)] = Version(installed).public
    here = {name: version for name, version in versions.items() if not OF_A_CUDA_BUILD.match(name)}

    assert here == pins(lock), "run `make lock`, then `make test`"


@pytest.mark.parametrize("lock", OF_OTHERS)
def test_a_lock_of_others_programs_holds_what_its_source_names(lock: Lock) -> None:
    locked = pins(lock)
    lines = (line.partition("#")[0].strip() for line in (ROOT / lock.source).read_text().splitlines())
    named = [Requirement(line) for line in lines if line]

    assert named
    for requirement in named:
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("lock", EVERY_LOCK)
def test_a_lock_agrees_with_the_one_it_extends(lock: Lock) -> None:
    for other in LOCKS:
        if other.path == lock.agrees_with:
            theirs, own = pins(other), pins(lock)
            assert {name for name in own.keys() & theirs if own[name] != theirs[name]} == set()
            assert not set(other.extras) <= set(lock.extras) or theirs.keys() <= own.keys()


@pytest.mark.parametrize("lock", EVERY_LOCK)
def test_a_lock_leaves_the_build_of_torch_to_the_machine(lock: Lock) -> None:
    assert [name for name in pins(lock) if OF_A_CUDA_BUILD.match(name)] == []


@pytest.mark.parametrize("lock", [pytest.param(lock, id=lock.path) for lock in GATEWAY])
def test_the_gateways_locks_hold_nothing_of_torch(lock: Lock) -> None:
    assert [name for name in pins(lock) if OF_TORCH.fullmatch(name) or OF_A_CUDA_BUILD.match(name)] == []


def test_the_check_for_torch_knows_torch() -> None:
    bento = next(lock for lock in LOCKS if lock.extras == ("models",))

    assert {"torch", "transformers", "sentence-transformers"} <= {n for n in pins(bento) if OF_TORCH.fullmatch(n)}
    assert all(OF_A_CUDA_BUILD.match(n) for n in ("nvidia-cublas-cu12", "triton", "cuda-bindings"))
    assert not OF_A_CUDA_BUILD.match("nvidia-ml-py")
