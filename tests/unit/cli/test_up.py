"""`torchless up` with real processes under a real supervisord; small programs stand in for the bentos."""

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

from tests.waiting import wait_until
from torchless.cli.free_ports import free_port, free_ports
from torchless.cli.orphans import still_running
from torchless.workers import WORKER_ENDED

WAIT_S = 60.0


class Up:
    """The command in another process, and its output."""

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
        """Reads up to a line that contains `text`."""
        while (line := self._lines.get(timeout=WAIT_S)) is not None:
            self.printed.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} was not printed:\n" + "\n".join(self.printed))

    def all(self) -> str:
        """The whole output, after the process has ended."""
        while (line := self._lines.get(timeout=WAIT_S)) is not None:
            self.printed.append(line)
        return "\n".join(self.printed)

    def family(self) -> list[psutil.Process]:
        """The descendants of the command now."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def service(self, port: int) -> psutil.Process:
        """The process of the service on a port."""
        return next(p for p in self.family() if "stand_in.py" in " ".join(p.cmdline()) and str(port) in p.cmdline())

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A folder for state; a test that leaves the command or its supervisord running fails."""
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
def test_up_prints_when_each_service_is_ready_and_leaves_no_process(state: Path, number: int) -> None:
    one, two = free_ports(2)
    up = Up(state, f"one={one}", f"two={two}")
    up.until("the stack is up")
    family = up.family()

    # supervisord, and for each service its process and the worker in another session.
    assert len(family) == 5
    assert up.stop(number) == 0
    assert gone(family)
    printed = up.all()
    assert "curl -s http://127.0.0.1:3000/v1/embeddings" in printed
    assert f"127.0.0.1:{one}" in printed
    assert f"127.0.0.1:{two}" in printed
    assert printed.count("one is ready after") == 1
    assert printed.count("two is ready after") == 1
    assert printed.endswith("stopped")


def test_a_service_that_dies_is_reported_and_restarted(state: Path) -> None:
    port, other = free_ports(2)
    up = Up(state, f"one={port}", f"two={other}")
    up.until("the stack is up")
    dead, unharmed = up.service(port), up.service(other)
    orphans = dead.children()
    dead.kill()
    up.until("one died (terminated by SIGKILL; ")
    up.until(f"listening on {port}")
    up.until("ERROR   the process ended: terminated by SIGKILL")
    up.until("one is ready after")

    assert gone(orphans)
    assert up.service(port).pid != dead.pid
    assert unharmed.is_running()
    family = up.family()
    assert up.stop() == 0
    assert gone(family)


def test_up_stops_waiting_when_a_service_ends_before_it_is_ready(state: Path) -> None:
    up = Up(state, f"one={free_port()},--crash", f"two={free_port()},--deaf")

    *others, why, where = up.all().splitlines()

    assert up.process.wait(WAIT_S) == 1
    assert why == "one does not start: the model folder is empty"
    assert where == f"its log: {state / 'logs/one.log'}"
    assert "died" not in "".join(others)


def test_up_stops_waiting_when_a_service_says_that_it_cannot_start(state: Path) -> None:
    up = Up(state, f"one={free_port()},--hopeless")

    assert "one does not start: no GPU\n" in up.all()
    assert up.process.wait(WAIT_S) == 1


def test_up_says_what_a_service_waits_for_that_tries_again(state: Path) -> None:
    up = Up(state, f"one={free_port()},--retries")
    up.until("one: no hub; the next attempt is in 4 s")
    up.until("the stack is up")

    assert up.stop() == 0


def test_a_service_that_only_a_change_helps_is_not_restarted(state: Path) -> None:
    port, other = free_ports(2)
    up = Up(state, f"one={port}", f"two={other}")
    up.until("the stack is up")
    unharmed = up.service(other)
    up.service(port).send_signal(signal.SIGUSR1)
    up.until("one is not restarted: ")
    wait_until(lambda: not any(str(port) in process.cmdline() for process in up.family()), within_s=WAIT_S)

    assert unharmed.is_running()
    assert up.stop() == 0
    assert "died" not in up.all()


def test_a_worker_that_ends_is_reported_with_its_reason_until_the_service_is_ready_again(state: Path) -> None:
    port = free_port()
    up = Up(state, f"one={port}")
    up.until("the stack is up")
    with (state / "logs/one.log").open("a") as log:
        log.write(f"2026-11-27T21:00:00+0000 ERROR torchless.workers: {WORKER_ENDED}: process 7, killed by SIGKILL\n")

    up.until("one: a worker ended: process 7, killed by SIGKILL; a new one starts")
    up.until("one is ready after")
    assert up.stop() == 0


def test_up_stops_waiting_when_a_worker_is_killed_before_its_service_is_ready(state: Path) -> None:
    up = Up(state, f"one={free_port()},--deaf")
    up.until("logs: ")
    wait_until(lambda: "still loading" in (state / "logs/one.log").read_text(), within_s=WAIT_S)
    with (state / "logs/one.log").open("a") as log:
        log.write(f"2026-11-27T21:00:00+0000 ERROR torchless.workers: {WORKER_ENDED}: process 7, killed by SIGKILL\n")

    assert "one does not start: process 7, killed by SIGKILL" in up.all()
    assert up.process.wait(WAIT_S) == 1


def test_the_log_of_a_slow_service_is_printed(state: Path) -> None:
    up = Up(state, f"one={free_port()},--deaf")
    up.until("one is slow to become ready")
    up.until("still loading")
    family = up.family()

    assert up.stop() == 0
    assert gone(family)


def test_a_port_in_use_is_reported_with_its_option_before_any_service_starts(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        up = Up(state, f"one={free_port()}", f"two={port}")

        assert f"process {os.getpid()}, " in (printed := up.all())
        assert "listens on it); choose another with --port two=NUMBER" in printed
        assert up.process.wait(WAIT_S) == 1
    assert sorted(path.name for path in state.iterdir()) == ["logs", "stack.json"]


def test_all_port_conflicts_are_reported_at_once(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        taken, other, free = first.getsockname()[1], second.getsockname()[1], free_port()
        up = Up(state, f"one={taken}", f"two={other}", f"three={free}", f"four={free}")
        printed = up.all()

    assert up.process.wait(WAIT_S) == 1
    assert [line.split(" ", 3)[:2] for line in printed.splitlines() if line.startswith("port")] == [
        ["port", str(taken)],
        ["port", str(other)],
    ]
    assert f"three and four both use port {free}; change one with --port four=NUMBER" in printed
    assert sorted(path.name for path in state.iterdir()) == ["logs", "stack.json"]


def test_a_state_folder_holds_one_stack(state: Path) -> None:
    first = Up(state, f"one={free_port()}")
    first.until("the stack is up")
    second = Up(state, f"one={free_port()}")

    assert "another stack uses" in second.all()
    assert second.process.wait(WAIT_S) == 1
    assert first.stop() == 0


def test_up_kills_the_orphans_of_a_killed_run(state: Path) -> None:
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


def test_a_second_signal_kills_a_stubborn_service_at_once(state: Path) -> None:
    up = Up(state, f"one={free_port()},--stubborn")
    up.until("the stack is up")
    family = up.family()
    up.process.send_signal(signal.SIGINT)
    up.until("stopping")
    up.process.send_signal(signal.SIGINT)

    assert up.process.wait(WAIT_S) != 0
    assert gone(family)


def test_a_stubborn_service_is_killed_after_its_grace_period(state: Path) -> None:
    up = Up(state, f"one={free_port()},--stubborn")
    up.until("the stack is up")
    family = up.family()

    assert up.stop() == 0
    assert gone(family)


def test_the_death_of_supervisord_is_reported(state: Path) -> None:
    up = Up(state, f"one={free_port()}")
    up.until("the stack is up")
    family = up.family()
    supervisord = psutil.Process(up.process.pid).children()[0]
    os.kill(supervisord.pid, signal.SIGKILL)

    assert "supervisord ended unexpectedly" in up.all()
    assert up.process.wait(WAIT_S) == 1
    assert gone(family)
