"""Lock files agree with their sources, and the gateway's locks contain no torch.

These tests need no network: they compare the locks with the installed packages and their declared requirements.
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
IN_THIS_ENVIRONMENT = [
    # The tests' tools bring what the GPU service needs into the gateway's environment.
    pytest.param(lock, id=lock.path, marks=(pytest.mark.torch,) if "models" in lock.extras else ())
    for lock in LOCKS
    if lock.source == "pyproject.toml"
]
OF_OTHER_PROGRAMS = [pytest.param(lock, id=lock.path) for lock in LOCKS if lock.source != "pyproject.toml"]
EVERY_LOCK = [pytest.param(lock, id=lock.path) for lock in LOCKS]
# nvidia-ml-py is not among them: BentoML asks for it, and it is pure Python over the driver's NVML, without CUDA.
OF_TORCH = re.compile(r"torch|torchvision|torchaudio|transformers|sentence-transformers|" + OF_A_CUDA_BUILD.pattern)


def pins(lock: Lock) -> dict[str, str]:
    """The packages of a lock, name to version."""
    return pins_in((ROOT / lock.path).read_text())


def pins_in(text: str) -> dict[str, str]:
    """The lines of a lock, name to version; fails at any other line."""
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pin = re.fullmatch(r"([a-z0-9][a-z0-9-]*)==([0-9][0-9a-z.]*)", line)
        assert pin is not None, f"a lock may hold `name==version` lines only, not {line!r}"
        found[pin[1]] = pin[2]
    return found


def requirements_of(lock: Lock) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(r) for r in project["dependencies"] + [r for extra in lock.extras for r in extras[extra]]]


def needed(requirements: list[Requirement]) -> Iterator[tuple[Requirement, str]]:
    """Every requirement reached from `requirements` whose marker holds here, with the installed version."""
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


@pytest.mark.parametrize("lock", IN_THIS_ENVIRONMENT)
def test_lock_contains_exactly_the_requirements_of_the_project(lock: Lock) -> None:
    versions: dict[str, str] = {}
    for requirement, installed in needed(requirements_of(lock)):
        assert requirement.specifier.contains(installed, prereleases=True), (
            f"{requirement} is required and {installed} is locked: run `make lock`"
        )
        # A local version such as +cpu depends on the machine.
        versions[canonicalize_name(requirement.name)] = Version(installed).public
    here = {name: version for name, version in versions.items() if not OF_A_CUDA_BUILD.match(name)}

    assert here == pins(lock), "run `make lock`, then `make test`"


@pytest.mark.parametrize("lock", OF_OTHER_PROGRAMS)
def test_lock_of_other_programs_contains_the_packages_of_its_source(lock: Lock) -> None:
    locked = pins(lock)
    lines = (line.partition("#")[0].strip() for line in (ROOT / lock.source).read_text().splitlines())
    named = [Requirement(line) for line in lines if line]

    assert named
    for requirement in named:
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("lock", EVERY_LOCK)
def test_lock_agrees_with_the_lock_it_extends(lock: Lock) -> None:
    for other in LOCKS:
        if other.path == lock.agrees_with:
            theirs, own = pins(other), pins(lock)
            assert {name for name in own.keys() & theirs if own[name] != theirs[name]} == set()
            assert not set(other.extras) <= set(lock.extras) or theirs.keys() <= own.keys()


@pytest.mark.parametrize("lock", EVERY_LOCK)
def test_lock_does_not_pin_the_build_of_torch(lock: Lock) -> None:
    assert [name for name in pins(lock) if OF_A_CUDA_BUILD.match(name)] == []


@pytest.mark.parametrize("lock", [pytest.param(lock, id=lock.path) for lock in GATEWAY])
def test_locks_of_the_gateway_contain_no_torch(lock: Lock) -> None:
    assert [name for name in pins(lock) if OF_TORCH.fullmatch(name) or OF_A_CUDA_BUILD.match(name)] == []


def test_torch_pattern_matches_torch_packages() -> None:
    bento = next(lock for lock in LOCKS if lock.extras == ("models",))

    assert {"torch", "transformers", "sentence-transformers"} <= {n for n in pins(bento) if OF_TORCH.fullmatch(n)}
    assert all(OF_A_CUDA_BUILD.match(n) for n in ("nvidia-cublas-cu12", "triton", "cuda-bindings"))
    assert not OF_A_CUDA_BUILD.match("nvidia-ml-py")
