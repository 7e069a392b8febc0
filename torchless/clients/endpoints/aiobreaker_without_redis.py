"""aiobreaker without Redis' client.

It imports that wherever it is installed, for a storage that is not used here: a tenth of a second and 8 MB of every
gateway worker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _not_installed(package: str) -> Iterator[None]:
    """Importing `package` fails within, unless that was done before."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how the import system marks what cannot be imported
    try:
        yield
    finally:
        del sys.modules[package]


with _not_installed("redis"):
    from aiobreaker import CircuitBreaker, CircuitBreakerError, CircuitBreakerListener
    from aiobreaker.state import CircuitBreakerState

__all__ = ["CircuitBreaker", "CircuitBreakerError", "CircuitBreakerListener", "CircuitBreakerState"]
