"""Divides what a worker has so much of, so that no capability that hangs takes what the others need."""

from __future__ import annotations

from collections import Counter
from typing import Literal

Compartment = Literal["embedding", "reranking", "gpu", "models"]
"""For whom something is taken: a capability, or the routes that ask several of them for their models."""


class Bulkheads:
    """Room that compartments share: none holds more than it leaves free.

    The rule is that of Choudhury and Hahne (Dynamic Queue Length Thresholds for Shared-Memory Packet Switches, 1998)
    with a factor of 1. So one alone may hold half. While one is full, a second finds room for half of that, and a
    third again for half of what is left then: whatever hangs, there is room for another. What is small against the
    whole is bounded by this alone; the first piece of a compartment that holds nothing else may be as large as all
    that is free.

    Args:
        size: How much there is, in whichever unit is taken.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: Counter[Compartment] = Counter()

    def reconfigure(self, size: int) -> None:
        """Changes how much there is; what is held stays, and counts, also where it is more."""
        self._size = size

    def take(self, compartment: Compartment, amount: int, begun: int = 0) -> bool:
        """Whether there was room; if so, it is held.

        Args:
            compartment: For whom.
            amount: How much.
            begun: What it holds already of the same piece, where that is taken bit by bit.
        """
        held = self._held[compartment]
        free = self._size - self._held.total() - amount
        if amount and (free < 0 or (held > begun and held + amount > free)):
            return False
        self._held[compartment] = held + amount
        return True

    def give_back(self, compartment: Compartment, amount: int) -> None:
        """Frees what was taken."""
        self._held[compartment] -= amount
