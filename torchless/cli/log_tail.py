"""Reads the end of a log file, and follows one that grows."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from torchless.cli.log_lines import error_in
from torchless.telemetry.log_format import JSONFormatter

_READ_BYTES = 64 * 1024
_MOST_BYTES = 1024 * 1024
"""Most bytes that a follower reads at a time."""


def log_tail(log: Path, lines: int = 15) -> str:
    """The last `lines` lines of the file `log`, of its last 64 KiB; empty if there is no such file."""
    return "\n".join(_end(log)[-lines:])


def last_error(log: Path) -> str:
    """The text of the last error in the file `log`; without an error its last line, and empty if there is none.

    Lines are plain text, or JSON objects with a level.
    """
    lines = [line for line in _end(log) if line.strip()]
    errors = filter(None, map(error_in, reversed(lines)))
    return next(errors, lines[-1].strip() if lines else "")


def append_error(log: Path, service: str, message: str) -> None:
    """Adds a line to the log of a service that could not write it itself."""
    record = logging.LogRecord("torchless.cli", logging.ERROR, "", 0, message, None, None)
    with log.open("a") as file:
        file.write(f"{JSONFormatter(service).format(record)}\n")


class LogFollower:
    """Reads the lines that are added to a log, also after it was rotated.

    Args:
        log: The file; it may not exist yet.
        from_start: Whether to begin with the lines that it has already.
    """

    def __init__(self, log: Path, *, from_start: bool = True) -> None:
        self._log = log
        self._rest = b""
        self._file = 0
        self._offset = 0
        if not from_start and log.is_file():
            self._file, self._offset = log.stat().st_ino, log.stat().st_size

    def lines(self) -> list[str]:
        """The complete lines that were added since the last call, without line breaks."""
        try:
            with self._log.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._file or status.st_size < self._offset:
                    self._file, self._offset, self._rest = status.st_ino, 0, b""
                file.seek(self._offset)
                added = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return []
        self._offset += len(added)
        *complete, self._rest = (self._rest + added).split(b"\n")
        return [line.decode(errors="replace") for line in complete]


def _end(log: Path) -> list[str]:
    if not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _READ_BYTES))
        return file.read().decode(errors="replace").splitlines()
