"""A child process that does one job after another, such as the load generator and the direct call."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from benchmarks.paths import ROOT
from benchmarks.systems.processes import ChildFailedError, quiet_environment
from torchless.cli.log_tail import log_tail


class WorkerProcess:
    """Runs `python -m module`, which answers jobs with `benchmarks.job_loop`.

    Args:
        python: Python of the environment that the module needs.
        module: The module.
        log: File for its output.
        arguments: Arguments after the module.
    """

    def __init__(self, python: Path, module: str, log: Path, arguments: tuple[str, ...] = ()) -> None:
        self._command = [str(python), "-m", module, *arguments]
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=quiet_environment(),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _pipe(self._process.stdin).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(self, job: Mapping[str, Any], timeout_s: float) -> Any:
        """Sends a job and returns the answer.

        Raises:
            ChildFailedError: The process ended or did not answer in time; with the end of its log.
        """
        stdin, stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        try:
            stdin.write(json.dumps(job).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise ChildFailedError(f"{self._command[2]} ended\n{log_tail(self._log)}") from error
        if not select.select([stdout], [], [], timeout_s)[0]:
            raise ChildFailedError(f"{self._command[2]} did not answer within {timeout_s:.0f} s\n{log_tail(self._log)}")
        line = stdout.readline()
        if not line:
            self._process.wait(10)  # the process prints the reason after the pipe closes
            raise ChildFailedError(f"{self._command[2]} ended\n{log_tail(self._log)}")
        return json.loads(line)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # both are pipes
    return pipe
