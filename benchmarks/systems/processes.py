"""Starts servers, waits until they are ready, and stops them with all their children."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.paths import ROOT
from torchless.cli.log_tail import log_tail


class ChildFailedError(Exception):
    """A process of the benchmark ended or does not answer."""


class Server:
    """One server with its children.

    Args:
        command: The program and its arguments.
        environment: Environment variables on top of those of this process.
        log: File for its output.
        directory: Its working directory.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, directory: Path = ROOT
    ) -> None:
        self._command = list(command)
        self._directory = directory
        self._environment = {**quiet_environment(), **environment}
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = tree(self._process.pid)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in psutil.wait_procs(family, timeout=5)[1]:
            process.kill()

    @property
    def pid(self) -> int:
        """Process id of the supervisor, the root of the server's processes."""
        return self._process.pid

    def wait(self, answers: Callable[[], bool], timeout_s: float, pause_s: float = 0.2) -> None:
        """Waits until `answers` returns True; OSError counts as False.

        Raises:
            ChildFailedError: The server ended or was not ready in time; with the end of its log.
        """
        deadline = time.perf_counter() + timeout_s
        while time.perf_counter() < deadline:
            if self._process.poll() is not None:
                raise ChildFailedError(f"{Path(self._command[0]).name} ended while it started\n{log_tail(self._log)}")
            try:
                if answers():
                    return
            except OSError:  # does not listen yet
                pass
            time.sleep(pause_s)
        raise ChildFailedError(
            f"{Path(self._command[0]).name} was not ready after {timeout_s:.0f} s\n{log_tail(self._log)}"
        )


def tree(pid: int) -> list[psutil.Process]:
    """The process and all its descendants; empty if it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def quiet_environment() -> dict[str, str]:
    """This process's environment without settings of the stack; libraries neither send telemetry nor download."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLESS_")}
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    }
