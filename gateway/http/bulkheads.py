"""Divides what a worker has between capabilities, so that one that hangs does not take what the others need.

The pattern is the bulkhead (Nygard, Release It!, 2007). A bulkhead is named by the routes that use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from torchless.contracts.errors import ErrorKind, TorchlessError


class SharedCapacity:
    """Capacity that bulkheads share: none holds more than it leaves free.

    The rule is that of Choudhury and Hahne (Dynamic Queue Length Thresholds for Shared-Memory Packet Switches, 1998)
    with a factor of 1. So one bulkhead alone may hold half. While one is full, a second may hold half of the rest, and
    a third half of what is left then: whatever hangs, there is capacity for another. Small amounts are bounded by
    this alone; the first piece of a bulkhead that holds nothing else may be as large as all that is free.

    Args:
        size: The capacity, in any unit.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: Counter[str] = Counter()

    def reconfigure(self, size: int) -> None:
        """Changes the capacity; what is held stays and counts, even if it is more."""
        self._size = size

    def take(self, bulkhead: str, amount: int, begun: int = 0) -> bool:
        """Takes capacity if there is enough, and returns whether there was.

        Args:
            bulkhead: The bulkhead that takes it.
            amount: The amount.
            begun: What the bulkhead already holds of the same piece, if it is taken in parts.
        """
        held = self._held[bulkhead]
        free = self._size - self._held.total() - amount
        if amount and (free < 0 or (held > begun and held + amount > free)):
            return False
        self._held[bulkhead] = held + amount
        return True

    def give_back(self, bulkhead: str, amount: int) -> None:
        """Returns capacity."""
        self._held[bulkhead] -= amount


class Admission:
    """Bounds the requests in progress in one worker, because it holds their bodies and responses in memory.

    Args:
        limit: Most requests in progress.
    """

    def __init__(self, limit: int) -> None:
        self._slots = SharedCapacity(limit)

    def reconfigure(self, limit: int) -> None:
        """Changes the limit; requests in progress stay and count, even if they are more."""
        self._slots.reconfigure(limit)

    @contextmanager
    def slot(self, bulkhead: str) -> Iterator[None]:
        """Holds a slot until the end of the block.

        Raises:
            TorchlessError: OVERLOADED, when no slot is free.
        """
        if not self._slots.take(bulkhead, 1):
            message = (
                "the gateway is busy: it is at its limit of concurrent requests; retry after the Retry-After delay"
            )
            raise TorchlessError(ErrorKind.OVERLOADED, message, retry_after_s=1.0)
        try:
            yield
        finally:
            self._slots.give_back(bulkhead, 1)
