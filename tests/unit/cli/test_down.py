"""`torchless down` and `torchless logs` with real processes under a real supervisord."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from tests.unit.cli.test_up import WAIT_S, Up, gone, state
from torchless.cli.free_ports import free_port, free_ports
from torchless.cli.main import app
from torchless.cli.state import StackState, read_state

__all__ = ["state"]
run = CliRunner().invoke


def test_down_stops_a_running_stack(state: Path) -> None:
    up = Up(state, f"one={free_port()}")
    up.until("the stack is up")
    family = up.family()

    done = run(app, ["down", "--state", str(state)])

    assert (done.exit_code, done.output) == (0, "stopped\n")
    assert gone(family)
    assert up.process.wait(WAIT_S) == 0
    assert up.all().endswith("stopped")


def test_down_ends_what_a_killed_up_left_behind(state: Path) -> None:
    up = Up(state, f"one={free_port()}", f"two={free_port()}")
    up.until("the stack is up")
    family = up.family()
    up.stop(signal.SIGKILL)
    assert all(process.is_running() for process in family)

    done = run(app, ["down", "--state", str(state)])

    assert done.exit_code == 0
    assert done.output.startswith("stopped")
    assert gone(family)


def test_down_ends_workers_whose_supervisor_was_killed_too(state: Path) -> None:
    up = Up(state, f"one={free_port()}")
    up.until("the stack is up")
    family = up.family()
    supervisord = psutil.Process(up.process.pid).children()[0]
    up.stop(signal.SIGKILL)
    supervisord.kill()

    done = run(app, ["down", "--state", str(state)])

    assert (done.exit_code, done.output.startswith("stopped; ")) == (0, True)
    assert gone(family)


def test_down_without_a_running_stack_says_so(state: Path) -> None:
    up = Up(state, f"one={free_port()}")
    up.until("the stack is up")
    assert up.stop() == 0

    done = run(app, ["down", "--state", str(state)])

    assert (done.exit_code, done.output) == (0, "no stack runs\n")


def test_down_leaves_a_process_alone_that_has_the_id_of_up_by_chance(state: Path) -> None:
    state.mkdir()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        written = {"marker": "gone", "pid": other.pid, "started": 1.0, "logs": str(state), "services": []}
        (state / "stack.json").write_text(json.dumps(written))

        done = run(app, ["down", "--state", str(state)])

        assert done.output == "no stack runs\n"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_state_knows_its_process() -> None:
    assert StackState.of_this_process("marker", Path(), ()).process() == psutil.Process(os.getpid())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"marker": "x"}',
        "0123456789abcdef",
        '{"marker": "x", "pid": "one", "started": 1.0, "logs": "logs", "services": []}',
        '{"marker": "x", "pid": -1, "started": 1.0, "logs": "logs", "services": []}',
        '{"marker": "x", "pid": 1, "started": "then", "logs": "logs", "services": []}',
        '{"marker": "x", "pid": 1, "started": 1.0, "logs": 5, "services": [1]}',
    ],
)
def test_an_unreadable_state_file_is_no_stack(state: Path, content: str) -> None:
    state.mkdir()
    (state / "stack.json").write_text(content)

    assert read_state(state) is None
    assert "no stack was started" in run(app, ["down", "--state", str(state)]).output


def test_logs_of_all_services_have_the_name_before_each_line(state: Path) -> None:
    one, three = free_ports(2)
    up = Up(state, f"one={one}", f"three={three}")
    up.until("the stack is up")
    assert up.stop() == 0

    shown = run(app, ["logs", "--state", str(state)], env={"COLUMNS": "20"})
    single = run(app, ["logs", "three", "-n", "1", "--state", str(state)])

    assert shown.output.splitlines() == [f"one   | listening on {one}", f"three | listening on {three}"]
    assert single.output == f"listening on {three}\n"


def test_logs_of_an_unknown_service_are_refused(state: Path) -> None:
    up = Up(state, f"one={free_port()}")
    up.until("the stack is up")
    assert up.stop() == 0

    refused = run(app, ["logs", "two", "--state", str(state)])

    assert refused.exit_code == 1
    assert "there is no service 'two'; the stack has one" in refused.stderr


def test_logs_follow_prints_new_lines_until_it_is_interrupted(state: Path) -> None:
    up = Up(state, f"one={free_port()}")
    up.until("the stack is up")
    follower = subprocess.Popen(
        [sys.executable, "-m", "torchless.cli", "logs", "one", "-f", "--state", str(state)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert follower.stdout.readline().startswith("listening on")
    with (state / "logs/one.log").open("a") as log:
        log.write("a new line\n")

    assert follower.stdout.readline() == "a new line\n"
    follower.send_signal(signal.SIGINT)
    assert follower.wait(WAIT_S) == 130
    follower.stdout.close()
    assert up.stop() == 0
