"""A bound on the requests that one worker works on at once: their bodies and answers are held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.http.bulkheads import Bulkheads, Compartment
from torchless.contracts.errors import ErrorKind, TorchlessError


class Admission:
    """Lets so many in, no compartment more than it leaves places free, and refuses the others at once.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._places = Bulkheads(limit)

    def reconfigure(self, limit: int) -> None:
        """Changes the bound; those inside stay, and count, also where there are more of them."""
        self._places.reconfigure(limit)

    @contextmanager
    def place(self, compartment: Compartment) -> Iterator[None]:
        """A place until the end of the block.

        Raises:
            TorchlessError: OVERLOADED, when there is none.
        """
        if not self._places.take(compartment, 1):
            raise TorchlessError(ErrorKind.OVERLOADED, "the gateway is busy; try again shortly", retry_after_s=1.0)
        try:
            yield
        finally:
            self._places.give_back(compartment, 1)
