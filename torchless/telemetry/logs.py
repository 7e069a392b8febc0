"""Logging of the loggers of this project to standard error; the loggers of libraries are not changed."""

from __future__ import annotations

import logging
import sys

_OURS = ("torchless", "gateway", "bentos")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S%z"


def configure_logging(level: str) -> None:
    """Logs lines of at least `level` to standard error; a second call only changes the level.

    Log lines never contain texts, vectors or secrets of a caller.
    """
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter(_FORMAT, _TIME))
            logger.addHandler(handler)
        logger.propagate = False
