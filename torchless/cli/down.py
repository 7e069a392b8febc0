"""Stops a stack from another process."""

from __future__ import annotations

from pathlib import Path

import psutil
from rich.console import Console

from torchless.cli.orphans import find, kill_orphans, still_running
from torchless.cli.state import read_state

STOPS_WITHIN_S = 180.0
"""Time for services to finish their calls, one after the other, before they are killed, in seconds."""


def down(folder: Path, console: Console) -> None:
    """Stops the stack of a state folder, and returns when none of its processes runs.

    Only processes that are certainly the stack's are signalled: `torchless up` by its id and start time, every other by
    the marker in its environment.

    Args:
        folder: The state folder.
        console: Where to print.
    """
    state = read_state(folder)
    if state is None:
        console.print(f"no stack was started with its state in {folder}", markup=False, soft_wrap=True)
        return
    up = state.process()
    if up is None and not find(state.marker):
        console.print("no stack runs")
        return
    # Without `torchless up`, supervisord goes on; it stops the services in order as well.
    leaders = [up] if up is not None else [p for p in find(state.marker) if _is_supervisord(p)]
    with console.status("stopping"):
        for leader in leaders:
            _terminate(leader)
        left = still_running(leaders, STOPS_WITHIN_S)
        for leader in left:
            leader.kill()
        killed = kill_orphans(state.marker)
    forced = f"; {killed} processes had to be ended one by one" if killed else ""
    console.print(f"stopped{forced}")


def _is_supervisord(process: psutil.Process) -> bool:
    try:
        return "supervisor.supervisord" in process.cmdline()
    except psutil.Error:
        return False


def _terminate(process: psutil.Process) -> None:
    try:
        process.terminate()
    except psutil.NoSuchProcess:
        return
