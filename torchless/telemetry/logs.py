"""The log of a process: one line an event on standard error, for our own code and for every library.

Nothing that a caller sent gets into a line: an exception is logged as its type and stack without its message, which may
quote what the code worked on (unless it ends the process), and lines of libraries below WARNING are not written.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from types import TracebackType
from typing import TextIO

from torchless.settings.logs import LogSettings
from torchless.telemetry.log_format import JSONFormatter, TextFormatter

_OURS = ("torchless", "gateway", "bentos")
_LIBRARIES = ("bentoml", "circus", "uvicorn", "uvicorn.error", "uvicorn.access")
"""Loggers of libraries that have separate handlers and levels."""
_WARNINGS = logging.getLogger("py.warnings")
_CRASHES = logging.getLogger("torchless.crash")


def configure_logging(settings: LogSettings, service: str) -> None:
    """Writes the lines of all loggers, warnings and uncaught exceptions of this process in one form.

    Call it after BentoML configured its own logging, for example in the module that BentoML loads.

    Args:
        settings: Level and format.
        service: Name of the program, in every line.
    """
    as_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    handler = _LineHandler(sys.stderr)
    handler.setFormatter(TextFormatter(service) if as_text else JSONFormatter(service))
    logging.getLogger().handlers[:] = [handler]
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # The access log would hold the raw path and the query. Without a handler uvicorn does not even make its lines.
    access = logging.getLogger("uvicorn.access")
    access.propagate, access.disabled = False, True
    set_level(settings.level)
    # No line shows them, and finding them out costs a tenth of a line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    warnings.showwarning = _log_warning
    sys.excepthook = _log_crash
    threading.excepthook = lambda crash: _log_thread_crash(crash.exc_value, crash.thread)


def set_level(level: str) -> None:
    """Changes the least severe lines that are written, to one of the levels of `LogSettings`."""
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    wanted = logging.getLevelNamesMapping()[level]
    for name in ("", *_LIBRARIES):
        logging.getLogger(name).setLevel(max(logging.WARNING, wanted))
    # It says where it listens.
    logging.getLogger("bentoml").setLevel(max(logging.INFO, wanted))


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes each line with one system call: standard error is flushed at the end of a line in any case."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        try:
            self.stream.write(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)


def _log_warning(  # noqa: PLR0917  # the signature is Python's
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """As `warnings.showwarning`."""
    _WARNINGS.warning("%s: %s (%s:%d)", category.__name__, message, filename, lineno)


def _log_crash(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
    """As `sys.excepthook`: with the message, because requests do not end a process."""
    if issubclass(kind, Exception):
        _CRASHES.critical("the process failed: %s: %s", kind.__name__, error, exc_info=error)


def _log_thread_crash(error: BaseException | None, thread: threading.Thread | None) -> None:
    if isinstance(error, Exception):
        _CRASHES.critical("the thread %s failed", "" if thread is None else thread.name, exc_info=error)
