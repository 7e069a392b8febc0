"""The state file of a stack: which process runs it, and where its logs are.

`torchless up` locks the file while it runs; the kernel releases the lock when the process ends, for whatever reason.
"""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated

import psutil
from pydantic import Field, TypeAdapter

from torchless.cli.errors import StackError

_FILE = "stack.json"
_SAME_START_S = 2.0
"""Two start times of one process differ by less, in seconds: the clock may have been adjusted in between."""


@dataclass(frozen=True, slots=True)
class StackState:
    """The newest stack of a state folder."""

    marker: str
    """Value of the variable `TORCHLESS_STACK` in the stack's processes, alone or with `/<service>` after it."""
    pid: Annotated[int, Field(gt=0)]
    """Process id of `torchless up`."""
    started: float
    """When that process started, in seconds since 1970: another process may have the same id later."""
    logs: Path
    """Folder of the logs."""
    services: tuple[str, ...]
    """Names of the services, in the order in which they start."""

    @classmethod
    def of_this_process(cls, marker: str, logs: Path, services: tuple[str, ...]) -> StackState:
        """The state of a stack that this process runs."""
        own = psutil.Process()
        return cls(marker, own.pid, own.create_time(), logs, services)

    def process(self) -> psutil.Process | None:
        """The process of `torchless up`; None if it has ended, also if another process has its id now."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _SAME_START_S
        except psutil.Error:
            return None
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None


class StateLock:
    """The lock on a state folder: one stack at a time. Create it to take the lock.

    Args:
        folder: The state folder; it exists.

    Raises:
        StackError: Another stack has the lock.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._file: IO[str] = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise StackError(
                f"another stack uses {folder}: stop it with `torchless down`, or choose another folder with --state"
            ) from error

    def write(self, state: StackState) -> None:
        """Replaces the state in the file."""
        self._file.truncate(0)
        json.dump(asdict(state), self._file, default=str)
        self._file.flush()

    def release(self) -> None:
        """Releases the lock; the state stays, so that `torchless logs` finds the logs."""
        self._file.close()


def read_state(folder: Path) -> StackState | None:
    """The state of the newest stack of a folder; None if there was none."""
    try:
        return TypeAdapter(StackState).validate_json((folder / _FILE).read_bytes())
    except (OSError, ValueError):
        return None
