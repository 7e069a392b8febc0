"""Finds and ends orphans: processes of a stack whose supervisor ended without stopping them.

BentoML starts its workers in new sessions, so neither a process group nor a parent leads to a worker whose supervisor
was killed. But every process of a stack inherits the same environment variable.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import psutil

VARIABLE = "TORCHLESS_STACK"
"""Environment variable that marks a stack's processes: `<stack>` or `<stack>/<service>`."""
MOST_ROUNDS = 10
"""How often the search is repeated: the kernel may hold a process that cannot be killed."""


def find(marker: str, *, except_below: int | None = None) -> list[psutil.Process]:
    """Finds the processes of this user whose marker is `marker` or `marker/<anything>`.

    Args:
        marker: A stack, or one service of it.
        except_below: Id of a process to leave out, with all its descendants.
    """
    if not marker:
        return []  # every process without the variable would be meant
    own = {os.getpid()} if except_below is None else {os.getpid(), except_below}
    found = []
    for process in psutil.process_iter():
        try:
            value = process.environ().get(VARIABLE, "")
            if value != marker and not value.startswith(f"{marker}/"):
                continue
            if process.pid in own or (except_below is not None and except_below in {p.pid for p in process.parents()}):
                continue
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # it has ended, or belongs to another user
        found.append(process)
    return found


def kill_orphans(marker: str, *, except_below: int | None = None, grace_s: float = 2.0) -> int:
    """Ends the processes that `find` finds, and returns their number.

    Sends SIGTERM, and SIGKILL after `grace_s` seconds. Repeats until it finds no process, because a process may start
    others while it stops.
    """
    ended = 0
    for _ in range(MOST_ROUNDS):
        left = find(marker, except_below=except_below)
        if not left:
            break
        ended += len(left)
        for process in left:
            _signal(process, kill=False)
        for process in still_running(left, grace_s):
            _signal(process, kill=True)
        still_running(left, grace_s)
        grace_s = 0.5
    return ended


def still_running(processes: Sequence[psutil.Process], wait_s: float) -> list[psutil.Process]:
    """Waits up to `wait_s` seconds for processes to end, and returns the processes that still run.

    Zombies count as ended: only init can remove those of an orphan.
    """
    until = time.monotonic() + wait_s
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < until:
        time.sleep(0.02)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return
