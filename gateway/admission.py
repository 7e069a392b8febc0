"""A bound on the requests that one worker works on at once: their bodies and answers are held in memory."""

from __future__ import annotations

from types import TracebackType

from torchless.contracts.errors import ErrorKind, TorchlessError


class Admission:
    """A context manager that lets so many in, and refuses the others at once.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0

    def reconfigure(self, limit: int) -> None:
        """Changes the bound; those inside stay, and count, also where there are more of them."""
        self._limit = limit

    def __enter__(self) -> None:
        if self._inside >= self._limit:
            raise TorchlessError(ErrorKind.OVERLOADED, "the gateway is busy; try again shortly", retry_after_s=1.0)
        self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside -= 1
