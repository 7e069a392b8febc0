"""`torchless up`, with real processes under a real supervisord; only the bentos are stood in for."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from torchless.cli.free_ports import free_port
from torchless.cli.orphans import still_running

WAIT_S = 60.0


class Up:
    """The command in a process of its own, and what it prints."""

    def __init__(self, state: Path, *services: str) -> None:
        self.printed: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.cli.stand_in_stack", str(state), *services],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip())
        self._lines.put(None)

    def until(self, text: str) -> None:
        """Reads on to a line that holds `text`."""
        while (line := self._lines.get(timeout=WAIT_S)) is not None:
            self.printed.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} was not printed:\n" + "\n".join(self.printed))

    def all(self) -> str:
        """Everything printed, once the process has ended."""
        while (line := self._lines.get(timeout=WAIT_S)) is not None:
            self.printed.append(line)
        return "\n".join(self.printed)

    def family(self) -> list[psutil.Process]:
        """The processes below the command now."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def service(self, port: int) -> psutil.Process:
        """The process of the service on `port`."""
        return next(p for p in self.family() if "stand_in.py" in " ".join(p.cmdline()) and str(port) in p.cmdline())

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A folder for state; fails a test that leaves the command or its supervisord behind."""
    folder = tmp_path / "state"
    yield folder
    left = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]
    left = [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        process.kill()
        process.wait(WAIT_S)
    assert not left


def gone(processes: list[psutil.Process]) -> bool:
    return not still_running(processes, WAIT_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_tells_when_each_service_is_ready_and_leaves_nothing(state: Path, number: int) -> None:
    one, two = free_port(), free_port()
    up = Up(state, f"one={one}", f"two={two}")
    up.until("the stack is up")
    family = up.family()

    # supervisord, and for each service its process and the worker in a session of its own.
    assert len(family) == 5
    assert up.stop(number) == 0
    assert gone(family)
    printed = up.all()
    assert f"127.0.0.1:{one}" in printed
    assert f"127.0.0.1:{two}" in printed
    assert printed.count("one is ready after") == 1
    assert printed.count("two is ready after") == 1
    assert printed.endswith("stopped")


def test_names_a_service_that_died_and_starts_it_again(state: Path) -> None:
    port, other = free_port(), free_port()
    up = Up(state, f"one={port}", f"two={other}")
    up.until("the stack is up")
    dead, unharmed = up.service(port), up.service(other)
    orphans = dead.children()
    dead.kill()
    up.until("one died (terminated by SIGKILL)")
    up.until(f"listening on {port}")
    up.until("one is ready after")

    assert gone(orphans)
    assert up.service(port).pid != dead.pid
    assert unharmed.is_running()
    family = up.family()
    assert up.stop() == 0
    assert gone(family)


def test_gives_up_on_a_service_that_does_not_start(state: Path) -> None:
    up = Up(state, f"one={free_port()},--crash")

    printed = up.all()

    assert up.process.wait(WAIT_S) == 1
    assert "one died (exit status 3)" in printed
    assert "the model folder is empty" in printed
    assert "one is given up" in printed
    assert f"one does not start; its log is {state / 'one.log'}" in printed.replace("\n", "")


def test_shows_the_log_of_a_service_that_takes_long(state: Path) -> None:
    up = Up(state, f"one={free_port()},--deaf")
    up.until("one takes long to be ready")
    up.until("still loading")
    family = up.family()

    assert up.stop() == 0
    assert gone(family)


def test_a_taken_port_is_named_with_its_option_before_anything_starts(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        up = Up(state, f"one={free_port()}", f"two={port}")

        assert "choose another with --two-port" in up.all()
        assert up.process.wait(WAIT_S) == 1
    assert [path.name for path in state.iterdir()] == ["lock"]


def test_a_port_for_two_services_is_named_with_both_options(state: Path) -> None:
    port = free_port()
    up = Up(state, f"one={port}", f"two={port}")

    assert f"port {port} is asked for by both --one-port and --two-port" in up.all()
    assert up.process.wait(WAIT_S) == 1
    assert [path.name for path in state.iterdir()] == ["lock"]


def test_one_stack_a_folder(state: Path) -> None:
    first = Up(state, f"one={free_port()}")
    first.until("the stack is up")
    second = Up(state, f"one={free_port()}")

    assert "a stack is running from" in second.all()
    assert second.process.wait(WAIT_S) == 1
    assert first.stop() == 0


def test_ends_what_a_killed_run_left_behind(state: Path) -> None:
    port = free_port()
    killed = Up(state, f"one={port}")
    killed.until("the stack is up")
    left = killed.family()
    killed.stop(signal.SIGKILL)
    assert all(process.is_running() for process in left)

    up = Up(state, f"one={port}")
    up.until("the stack is up")

    assert gone(left)
    assert up.stop() == 0


def test_a_second_signal_ends_a_stubborn_service_at_once(state: Path) -> None:
    up = Up(state, f"one={free_port()},--stubborn")
    up.until("the stack is up")
    family = up.family()
    up.process.send_signal(signal.SIGINT)
    up.until("stopping")
    up.process.send_signal(signal.SIGINT)

    assert up.process.wait(WAIT_S) != 0
    assert gone(family)


def test_a_stubborn_service_is_killed_after_its_time(state: Path) -> None:
    up = Up(state, f"one={free_port()},--stubborn")
    up.until("the stack is up")
    family = up.family()

    assert up.stop() == 0
    assert gone(family)


def test_says_when_supervisord_is_gone(state: Path) -> None:
    up = Up(state, f"one={free_port()}")
    up.until("the stack is up")
    family = up.family()
    supervisord = psutil.Process(up.process.pid).children()[0]
    os.kill(supervisord.pid, signal.SIGKILL)

    assert "supervisord ended on its own" in up.all()
    assert up.process.wait(WAIT_S) == 1
    assert gone(family)
