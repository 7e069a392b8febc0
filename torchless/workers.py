"""Watches the workers of BentoML's supervisor: logs how one ended, and replaces it at once.

BentoML's supervisor is circus (its fork kantoku). By itself it searches for ended workers every ten seconds and logs
nothing about them.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
WORKER_ENDED = "a worker ended"
"""Beginning of the log line; `torchless up` searches the logs for it."""
REPLACED_EVERY_S = 5.0
"""Shortest interval between replacements at once, in seconds, so that a worker that ends while it starts does not keep
the processor busy; in between, the supervisor replaces it at its own pace."""
_ASKED_TO_STOP = (0, -signal.SIGTERM, -signal.SIGINT)


def watch_workers() -> None:
    """Makes BentoML's supervisor watch its workers, in the process that imports a service and then supervises it.

    Call it while the service is imported. The workers import the service too; there it has no effect, and costs no
    import. May be called more than once.
    """
    if _is_worker():
        return
    from circus.arbiter import Arbiter

    theirs = Arbiter.start
    if getattr(theirs, "is_ours", False):
        return

    def start(arbiter: Any, *args: Any, **kwargs: Any) -> Any:
        _WorkerWatch(arbiter).begin()
        return theirs(arbiter, *args, **kwargs)

    start.is_ours = True  # type: ignore[attr-defined]
    Arbiter.start = start


class _WorkerWatch:
    def __init__(self, arbiter: Any) -> None:
        self._arbiter = arbiter
        self._oom_kills = OOMKills()
        self._replaced_at = float("-inf")

    def begin(self) -> None:
        for watcher in self._arbiter.watchers:
            watcher.hooks["after_reap"] = self._on_end
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, lambda *_: self._arbiter.loop.add_callback_from_signal(self._replace))

    def _replace(self) -> Any:
        """Lets the supervisor search for ended workers now; not while it does something else, or stops."""
        now, arbiter = time.monotonic(), self._arbiter
        if arbiter._stopping or arbiter._exclusive_running_command or now - self._replaced_at < REPLACED_EVERY_S:
            return None
        self._replaced_at = now
        return arbiter.manage_watchers()

    def _on_end(self, *, process_pid: int, exit_code: int, **_: Any) -> None:
        """Called by circus with a worker that has ended (https://circus.readthedocs.io/en/latest/for-devs/hooks)."""
        if self._arbiter._stopping or exit_code in _ASKED_TO_STOP:
            return
        if exit_code > 0:
            # No error here: the worker has logged why.
            logger.warning("%s: process %d, exit status %d", WORKER_ENDED, process_pid, exit_code)
            return
        reason = f"; {self._oom_kills.reason()}" if exit_code == -signal.SIGKILL else ""
        name = signal.Signals(-exit_code).name
        logger.error("%s: process %d, killed by %s%s", WORKER_ENDED, process_pid, name, reason)


class OOMKills:
    """Says why a process may have got SIGKILL. Create it before that."""

    def __init__(self) -> None:
        self._known = _oom_kills()

    def reason(self) -> str:
        """Why the newest process that was killed got SIGKILL, as far as the kernel says."""
        before, self._known = self._known, _oom_kills()
        if self._known > before:
            return "memory ran out, and the kernel's OOM killer ended it"
        return "its container may have run out of memory, or it was ended with kill -9"


def _is_worker() -> bool:
    """Whether this is a worker, which BentoML starts for example as `python -m bentoml_cli.worker.grpc_api_server`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and ".worker." in spec.name


def _oom_kills() -> int:
    """How many processes the kernel has killed since it started because memory ran out; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
