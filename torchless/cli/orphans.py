"""Finds and ends processes that outlived the program that was to stop them.

BentoML puts its workers into sessions of their own, so neither a process group nor a parent leads to one whose
supervisor was killed. What every process of a stack inherits is a variable in its environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import psutil

VARIABLE = "TORCHLESS_STACK"
"""Environment variable that marks a stack's processes: `<stack>` or `<stack>/<service>`."""
MOST_ROUNDS = 10
"""How often processes are looked for again: the kernel may hold one that cannot be ended."""


def find(marker: str, *, except_below: int | None = None) -> list[psutil.Process]:
    """Processes of this user that carry `marker`, or `marker/<anything>`.

    Args:
        marker: A stack, or one service of it.
        except_below: Id of a process that is left out, and with it all its descendants.
    """
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
            continue  # gone meanwhile, or another user's
        found.append(process)
    return found


def kill_orphans(marker: str, *, except_below: int | None = None, grace_s: float = 2.0) -> int:
    """Ends the processes that `find` finds, with SIGTERM and after `grace_s` seconds with SIGKILL; how many there were.

    Looks again until it finds none, because a process may start others while it is being stopped.
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
    """Those of `processes` that have not ended within `wait_s` seconds.

    A process that has ended but that nobody has asked about (a zombie) does not count: an orphan's is the machine's.
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
