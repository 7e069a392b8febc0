"""What a process asks of the system about itself."""

from __future__ import annotations

import ctypes
import logging
import signal

logger = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def leave_with_parent() -> None:
    """Has the kernel send SIGTERM to this process when its parent dies, however it dies.

    BentoML's supervisor stops its workers when it is asked to leave, but not when it is killed: they would keep the
    port, and the next supervisor could not open it. Linux only; elsewhere, and where the kernel refuses, the log says
    so. See prctl(2), PR_SET_PDEATHSIG: "parent" is the thread that started this process.
    """
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, TypeError, OSError):
        logger.warning("this platform cannot stop a process with its parent: if the supervisor is killed, this stays")
        return
    if prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        logger.warning("cannot ask to be stopped with the parent process: errno %d", ctypes.get_errno())
