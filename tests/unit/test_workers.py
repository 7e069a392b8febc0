"""The watch over the workers of BentoML's supervisor, with a stand-in for circus' arbiter."""

from __future__ import annotations

import logging
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from torchless import workers
from torchless.workers import WORKER_ENDED, watch_workers


class Arbiter:
    """As `circus.arbiter.Arbiter`, as far as it is used."""

    def __init__(self) -> None:
        self.watchers = [SimpleNamespace(hooks={})]
        self.loop = self
        self._stopping = False
        self._exclusive_running_command: str | None = None
        self.managed = 0

    def start(self) -> str:
        return "started"

    def add_callback_from_signal(self, callback: Any) -> None:
        callback()

    def manage_watchers(self) -> None:
        self.managed += 1

    def end(self, exit_code: int) -> None:
        self.watchers[0].hooks["after_reap"](
            watcher=None, arbiter=self, hook_name="after_reap", process_pid=7, exit_code=exit_code, time=1.0
        )


@pytest.fixture
def arbiter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An arbiter that watches its workers."""
    module = SimpleNamespace(Arbiter=type("Arbiter", (Arbiter,), {"start": lambda self: "started"}))
    monkeypatch.setitem(sys.modules, "circus.arbiter", module)
    before = signal.getsignal(signal.SIGCHLD)
    watch_workers()
    watch_workers()
    made = module.Arbiter()
    assert made.start() == "started"
    yield made
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    ("exit_code", "level", "said"),
    [
        (3, logging.WARNING, "process 7, exit status 3"),
        (-signal.SIGSEGV, logging.ERROR, "process 7, killed by SIGSEGV"),
        (
            -signal.SIGKILL,
            logging.ERROR,
            "process 7, killed by SIGKILL; its container may have run out of memory, or it was ended with kill -9",
        ),
    ],
)
def test_the_end_of_a_worker_is_logged(
    arbiter: Any, exit_code: int, level: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter.end(exit_code)

    assert caplog.record_tuples == [("torchless.workers", level, f"{WORKER_ENDED}: {said}")]


def test_a_worker_that_the_kernel_killed_is_said_to_have_run_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, arbiter: Any
) -> None:
    kills = workers._oom_kills()
    monkeypatch.setattr(workers, "_oom_kills", lambda: kills + 1)
    arbiter.end(-signal.SIGKILL)
    arbiter.end(-signal.SIGKILL)

    assert [message.rpartition("; ")[2] for message in caplog.messages] == [
        "memory ran out, and the kernel's OOM killer ended it",
        "its container may have run out of memory, or it was ended with kill -9",
    ]


@pytest.mark.parametrize("exit_code", [0, -signal.SIGTERM, -signal.SIGINT])
def test_a_worker_that_was_asked_to_stop_is_not_logged(
    arbiter: Any, exit_code: int, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter.end(exit_code)

    assert caplog.messages == []


def test_an_ended_worker_is_replaced_at_once_but_not_again_and_again(arbiter: Any) -> None:
    signal.raise_signal(signal.SIGCHLD)
    signal.raise_signal(signal.SIGCHLD)

    assert arbiter.managed == 1


@pytest.mark.parametrize(("name", "value"), [("_stopping", True), ("_exclusive_running_command", "arbiter_stop")])
def test_a_supervisor_that_stops_is_left_alone(arbiter: Any, name: str, value: object) -> None:
    setattr(arbiter, name, value)
    signal.raise_signal(signal.SIGCHLD)

    assert arbiter.managed == 0
