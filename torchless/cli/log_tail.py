"""Reads the end of a log file."""

from __future__ import annotations

from pathlib import Path

_READ_BYTES = 64 * 1024


def log_tail(log: Path, lines: int = 15) -> str:
    """The last `lines` lines of the file `log`, of its last 64 KiB; empty if there is no such file."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _READ_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
