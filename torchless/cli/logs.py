"""Prints and follows the logs of a stack."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from torchless.cli.log_lines import readable
from torchless.cli.log_tail import LogFollower, log_tail

POLL_S = 0.2
"""Interval between polls of a log that is followed, in seconds."""
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def print_logs(logs: Mapping[str, Path], console: Console, *, lines: int, follow: bool) -> None:
    """Prints the last lines of each log; with `follow` also what is added, until it is interrupted.

    On a terminal, JSON lines are printed as text.

    Args:
        logs: The log files, by the service's name. With several, each line begins with the name.
        console: Where to print.
        lines: Number of lines of each log.
        follow: Whether to go on with new lines.
    """
    width = max(map(len, logs)) if len(logs) > 1 else 0
    prefixes = {
        name: f"[{colour}]{escape(name.ljust(width))} |[/] " if width else ""
        for name, colour in zip(logs, _COLOURS * len(logs), strict=False)
    }
    # Made first, so that no line is lost between the end of a log and what is added.
    followers = {name: LogFollower(log, from_start=False) for name, log in logs.items()}
    for name, log in logs.items():
        _print(console, prefixes[name], log_tail(log, lines).splitlines())
    while follow:
        for name, follower in followers.items():
            _print(console, prefixes[name], follower.lines())
        sys.stdout.flush()
        time.sleep(POLL_S)


def _print(console: Console, prefix: str, lines: Sequence[str]) -> None:
    for line in lines:
        for part in (readable(line) if console.is_terminal else line).splitlines():
            console.print(f"{prefix}{escape(part)}", highlight=False, soft_wrap=True)
