"""What an answer says of how it came about, where that is not as usual: one way for every API family.

Their bodies have no place for it, so it stands in headers: `x-torchless-cache` says what the cache gave, and
`x-torchless-degraded` names the capabilities that are out and were done without. Our own routes repeat the latter in
their bodies.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TypeVar

from starlette.datastructures import MutableHeaders

from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)
T = TypeVar("T")
CACHE_HEADER = "x-torchless-cache"
DEGRADED_HEADER = "x-torchless-degraded"
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

    def without(self, capability: str) -> None:
        """The answer does without `capability`."""
        if capability not in self.degraded:
            self.degraded.append(capability)

    async def optional(self, capability: str, work: Awaitable[T]) -> T | None:
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
            self.without(capability)
            return None

    def unanswered(self) -> TorchlessError:
        """The error to be raised where there is nothing to answer without the capabilities that are out."""
        names = " and ".join(sorted(self.degraded))
        return TorchlessError(
            ErrorKind.UNREACHABLE,
            f"there is no answer without {names}; try again shortly",
            retry_after_s=_RETRY_AFTER_S,
        )

    def tell(self, headers: MutableHeaders) -> None:
        """Puts what there is to say into the headers of an answer."""
        if self.hits or self.misses:
            headers[CACHE_HEADER] = "miss" if not self.hits else "partial" if self.misses else "hit"
        if self.degraded:
            headers[DEGRADED_HEADER] = ", ".join(self.degraded)
