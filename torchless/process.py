"""Ties a process to its parent, and says with which status a process exits."""

from __future__ import annotations

import ctypes
import logging
import signal

logger = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

EXIT_CONFIGURATION = 78
"""Exit status of a service that cannot start until its settings or its machine change (EX_CONFIG of sysexits.h)."""
EXIT_TEMPORARY = 75
"""Exit status of a service that may start when it is started again (EX_TEMPFAIL of sysexits.h)."""


def leave_with_parent() -> None:
    """Makes the kernel send SIGTERM to this process when its parent dies for any reason.

    BentoML's supervisor stops its workers when it gets a signal, but not when it is killed: they would keep the port,
    and the next supervisor could not open it. Linux only; on other systems, or if the kernel refuses, it logs a
    warning. See prctl(2), PR_SET_PDEATHSIG: "parent" is the thread that started this process.
    """
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, TypeError, OSError):
        logger.warning("this platform cannot end a process with its parent: workers outlive a killed supervisor")
        return
    if prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        logger.warning("the kernel refused to tie this process to its parent: errno %d", ctypes.get_errno())
