"""Log lines of our own loggers, on standard error, without touching those of the libraries around us."""

from __future__ import annotations

import logging
import sys

_OURS = ("torchless", "gateway", "bentos")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S%z"


def configure_logging(level: str) -> None:
    """Sends our loggers' lines of at least `level` to standard error; calling it again only changes the level.

    Nothing that is logged holds a caller's texts, vectors or secrets.
    """
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter(_FORMAT, _TIME))
            logger.addHandler(handler)
        logger.propagate = False
