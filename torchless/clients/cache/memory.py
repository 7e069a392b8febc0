"""The memory level: bounded in bytes, fair between tenants.

The caches of cachetools keep one order for all keys, so one tenant's flood would evict the entries of all the others.
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Final

from torchless.clients.cache.entry import Entry

OVERHEAD: Final = 400
"""Bytes that an entry takes in addition to its vector: key, entry, and their slots in the tables; measured."""
SHELF_OVERHEAD: Final = 1024
"""Bytes that a tenant takes in addition to its entries; measured."""


class _Shelf:
    """One tenant's entries, the least recently used first."""

    __slots__ = ("bytes", "entries", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.bytes = SHELF_OVERHEAD


class MemoryLevel:
    """Entries by tenant and digest.

    When they exceed `max_bytes`, the tenant with the most bytes loses its least recently used entry. So a tenant that
    floods the cache evicts its own entries once it holds more than any other, and never those of others.

    An expired entry is a miss; it is removed when it is found or evicted.

    Args:
        max_bytes: Limit for all entries including their overhead.
        ttl_s: Seconds that an entry is served after it was computed.
    """

    def __init__(self, max_bytes: int, ttl_s: int) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._shelves: dict[str, _Shelf] = {}
        # A heap. Each shelf is in it with its current bytes, and maybe with earlier numbers, which are skipped.
        self._largest: list[tuple[int, int, _Shelf]] = []
        self._order = count()
        self.bytes = 0
        """Bytes in use."""
        self.entries = 0
        """Number of entries."""
        self.evictions = 0
        """Entries evicted so far; expired ones are not counted."""

    def get(self, tenant: str, digests: Iterable[bytes]) -> dict[bytes, Entry]:
        """The entries of `digests` that are cached; they become the most recently used."""
        shelf = self._shelves.get(tenant)
        if shelf is None:
            return {}
        found, entries = {}, shelf.entries
        oldest = time.time() - self._ttl_s
        for digest in digests:
            entry = entries.get(digest)
            if entry is None:
                continue
            if entry.made_at <= oldest:
                self._drop(shelf, digest)
                continue
            entries.move_to_end(digest)
            found[digest] = entry
        return found

    def put(self, tenant: str, digests: Sequence[bytes], entries: Sequence[Entry]) -> None:
        """Stores `entries` as the most recently used, and evicts what no longer fits."""
        for digest, entry in zip(digests, entries, strict=True):
            self._add(tenant, digest, entry)
            while self.bytes > self._max_bytes:
                self._evict()

    def put_older(self, tenant: str, digest: bytes, entry: Entry) -> bool:
        """Stores `entry` as its tenant's least recently used, unless it is cached already or does not fit.

        Returns:
            Whether it fits.
        """
        shelf = self._shelves.get(tenant)
        if shelf is not None and digest in shelf.entries:
            return True
        if self.bytes + size_of(entry) + (0 if shelf else SHELF_OVERHEAD) > self._max_bytes:
            return False
        self._add(tenant, digest, entry)
        self._shelves[tenant].entries.move_to_end(digest, last=False)
        return True

    def _add(self, tenant: str, digest: bytes, entry: Entry) -> None:
        shelf = self._shelves.get(tenant)
        if shelf is None:
            shelf = self._shelves[tenant] = _Shelf(tenant)
            self.bytes += SHELF_OVERHEAD
        before = shelf.entries.pop(digest, None)
        shelf.entries[digest] = entry
        self.entries += before is None
        self._grow(shelf, size_of(entry) - (0 if before is None else size_of(before)))

    def _evict(self) -> None:
        shelf = self._largest_shelf()
        self._drop(shelf, next(iter(shelf.entries)))
        self.evictions += 1

    def _drop(self, shelf: _Shelf, digest: bytes) -> None:
        entry = shelf.entries.pop(digest)
        self.entries -= 1
        if shelf.entries:
            self._grow(shelf, -size_of(entry))
            return
        del self._shelves[shelf.tenant]
        self.bytes -= shelf.bytes
        shelf.bytes = 0

    def _grow(self, shelf: _Shelf, by: int) -> None:
        shelf.bytes += by
        self.bytes += by
        if len(self._largest) > 64 + 4 * len(self._shelves):
            self._largest = [(-other.bytes, next(self._order), other) for other in self._shelves.values()]
            heapq.heapify(self._largest)
            return
        heapq.heappush(self._largest, (-shelf.bytes, next(self._order), shelf))

    def _largest_shelf(self) -> _Shelf:
        while True:
            taken, _, shelf = self._largest[0]
            if -taken == shelf.bytes:
                return shelf
            heapq.heappop(self._largest)


def size_of(entry: Entry) -> int:
    """Bytes that `entry` takes in memory, including overhead."""
    return len(entry.vector) + OVERHEAD
