"""Records how an answer came about: what the cache gave, and which capabilities were out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TypeVar

from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)
T = TypeVar("T")
_RETRY_AFTER_S = 1.0
OUT = frozenset(
    {
        ErrorKind.UNREACHABLE,
        ErrorKind.CIRCUIT_OPEN,
        ErrorKind.GPU_UNAVAILABLE,
        ErrorKind.OVERLOADED,
        ErrorKind.DEADLINE,
        ErrorKind.INTERNAL,
    }
)
"""Errors that say that a capability is out, and not that it was asked wrongly."""


class Provenance:
    """How the answer to one request came about."""

    def __init__(self) -> None:
        self.hits = 0
        """Inputs whose vectors came from the cache."""
        self.misses = 0
        """Inputs whose vectors did not, though there is a cache."""
        self.degraded: list[str] = []
        """Capabilities that are out and that the answer does without, in the order in which that was found."""

    def cached(self, hits: int, misses: int) -> None:
        """So many inputs were (not) in the cache."""
        self.hits += hits
        self.misses += misses

    def mark_degraded(self, capability: str) -> None:
        """The answer does without `capability`."""
        if capability not in self.degraded:
            self.degraded.append(capability)

    async def or_degrade(self, capability: str, work: Awaitable[T]) -> T | None:
        """What `work` gives; None, and the answer says so, where `capability` is out.

        Raises:
            TorchlessError: A fault of the caller's.
        """
        try:
            return await work
        except TorchlessError as error:
            if error.kind not in OUT:
                raise
            logger.warning("answered without %s: %s", capability, error.message)
            self.mark_degraded(capability)
            return None

    def error(self) -> TorchlessError:
        """The error to be raised where there is nothing to answer without the capabilities that are out."""
        names = " and ".join(sorted(self.degraded))
        return TorchlessError(
            ErrorKind.UNREACHABLE,
            f"there is no answer without {names}; try again shortly",
            retry_after_s=_RETRY_AFTER_S,
        )
