"""What the cases share: bentos that are whole again before each case, gateways, and the table at the end of the run."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import require_program
from tests.resilience.case import Case
from tests.resilience.outcomes import Row
from tests.resilience.processes import Gateway, Process, Redis, StubBento
from tests.resilience.table import table_of

_CASE = pytest.StashKey[Case]()
_PASSED = pytest.StashKey[bool]()
_ROWS = pytest.StashKey[list[Row]]()
_TABLE_WIDTH = 160
_MENDED_WITHIN_S = 3.0

TEXT_MS = 5.0
"""Time of a stub's device for one text, in milliseconds, where a case says nothing else."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how hard cases are driven."""

    full: bool
    """Whether this is `make chaos`, not a test run among others."""
    rate: float
    """Arrivals a second that the whole stack carries easily."""
    clients: int
    """Clients that send one request after another at the same time."""
    phase_s: float
    """Time that each phase of a case takes, in seconds."""
    hang_ups: int
    """Requests whose caller disconnects."""
    soak_s: float
    """Time of the soak, in seconds."""


def _scale() -> Scale:
    soak_s = os.environ.get("TORCHLESS_CHAOS_SOAK_S")
    if os.environ.get("TORCHLESS_CHAOS") == "full":
        return Scale(
            full=True, rate=60.0, clients=16, phase_s=5.0, hang_ups=1000, soak_s=float(soak_s) if soak_s else 60.0
        )
    return Scale(
        full=False, rate=30.0, clients=12, phase_s=1.5, hang_ups=1000, soak_s=float(soak_s) if soak_s else 12.0
    )


@pytest.fixture(scope="session")
def scale() -> Scale:
    """How long and how hard cases are driven: TORCHLESS_CHAOS=full, and TORCHLESS_CHAOS_SOAK_S in seconds."""
    return _scale()


def pytest_configure(config: pytest.Config) -> None:
    """Declares the markers of this folder."""
    config.addinivalue_line("markers", "case(name): number and name of a case of the fault suite; it gets a row")
    config.addinivalue_line("markers", "full: only in the full suite, `make chaos`")
    config.stash.setdefault(_ROWS, [])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves cases that take long to the full suite."""
    if _scale().full:
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Makes a case before any of its fixtures, so that it has a row even if those fail."""
    if marker := item.get_closest_marker("case"):
        item.stash[_CASE] = Case(marker.args[0])
        item.stash[_PASSED] = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Writes a case's row once all of it is over."""
    report = yield
    if _CASE in item.stash:
        item.stash[_PASSED] &= report.passed
        if report.when == "teardown":
            item.config.stash[_ROWS].append(item.stash[_CASE].row(passed=item.stash[_PASSED]))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Shows the table, whatever became of the cases."""
    rows = config.stash.get(_ROWS, [])
    if rows:
        console = Console(file=io.StringIO(), width=_TABLE_WIDTH)
        console.print(table_of(rows))
        terminalreporter.write("\n" + console.file.getvalue())  # type: ignore[attr-defined]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """The running case."""
    found: Case = request.node.stash[_CASE]
    return found


@pytest.fixture
def ended() -> Iterator[Callable[[Process], None]]:
    """Ends processes that are given to it once the test is over."""
    given: list[Process] = []
    yield given.append
    for process in given:
        process.end()


@pytest.fixture(scope="session")
def _trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StubBento, ...]]:
    folder = tmp_path_factory.mktemp("trio")
    stubs = tuple(StubBento(name, folder, text_ms=TEXT_MS) for name in ("first", "second", "third"))
    yield stubs
    for stub in stubs:
        stub.end()


@pytest.fixture
async def trio(_trio: tuple[StubBento, ...]) -> tuple[StubBento, ...]:
    """Three stub bentos that serve, with no fault left of the case before."""
    await asyncio.gather(*(_mend(stub) for stub in _trio))
    return _trio


async def _mend(stub: StubBento) -> None:
    stub.set()
    if stub.alive:
        stub.thaw()
        try:
            async with asyncio.timeout(_MENDED_WITHIN_S):
                await stub.until_it_answers()
        except TimeoutError:  # what is lost for good, like a device
            stub.kill()
        else:
            return
    await stub.start()


StartGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
def gateway(tmp_path: Path, ended: Callable[[Process], None]) -> StartGateway:
    """Starts gateways: `await gateway(bentos, embedding={"breaker": {"open_s": 2}})`; see `settings_for`."""

    async def start(bentos: Sequence[str], **settings: Mapping[str, Any]) -> Gateway:
        process = Gateway(tmp_path, settings_for(bentos, **settings))
        ended(process)
        await process.start()
        return process

    return start


def settings_for(addresses: Sequence[str], **settings: Mapping[str, Any]) -> dict[str, Any]:
    """A gateway's settings: those addresses for embedding, nothing else behind it, and what is given over that."""
    given = {name: dict(group) for name, group in settings.items()}
    embedding = {"address": ",".join(addresses), **given.pop("embedding", {})}
    return {"embedding": embedding, "reranking": {"address": ""}, "gpu": {"address": ""}, **given}


@pytest.fixture
async def redis(tmp_path: Path, ended: Callable[[Process], None]) -> Redis:
    """A Redis of the test's own."""
    process = Redis(require_program("redis-server", "Debian's redis-server"), tmp_path)
    ended(process)
    await process.start()
    return process
