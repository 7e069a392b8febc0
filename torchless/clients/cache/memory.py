"""The memory level: bounded in bytes, fair between tenants.

Own, and not cachetools: its caches share one order among all keys, so that one tenant's flood evicts everybody else's.
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
"""Bytes that an entry takes besides its vector: key, entry, and their places in the tables; measured."""
SHELF_OVERHEAD: Final = 1024
"""Bytes that a tenant takes besides its entries; measured."""


class _Shelf:
    """One tenant's entries, the one used longest ago first."""

    __slots__ = ("bytes", "entries", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.bytes = SHELF_OVERHEAD


class MemoryLevel:
    """Entries by tenant and digest.

    When they pass `max_bytes`, the tenant that holds the most loses what it used longest ago. A tenant that floods the
    cache thus pushes out its own entries once it holds more than each of the others, and theirs not at all.

    An entry that is past its time is a miss, and goes when it is met or evicted.

    Args:
        max_bytes: Bound on all entries with their overhead.
        ttl_s: Seconds that an entry is served after it was made.
    """

    def __init__(self, max_bytes: int, ttl_s: int) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._shelves: dict[str, _Shelf] = {}
        # Every shelf stands in here with the bytes it has now, and maybe with some it had before: those are skipped.
        self._largest: list[tuple[int, int, _Shelf]] = []
        self._order = count()
        self.bytes = 0
        """Bytes that are taken."""
        self.entries = 0
        """Entries that are held."""
        self.evictions = 0
        """Entries that were pushed out so far, those past their time not counted."""

    def get(self, tenant: str, digests: Iterable[bytes]) -> dict[bytes, Entry]:
        """The entries of `digests` that are there, which makes them the last to go."""
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
        """Holds `entries`, as the last to go, and evicts what no longer fits."""
        for digest, entry in zip(digests, entries, strict=True):
            self._add(tenant, digest, entry)
            while self.bytes > self._max_bytes:
                self._evict()

    def put_older(self, tenant: str, digest: bytes, entry: Entry) -> bool:
        """Holds `entry` as the next to go of its tenant's, if it is not there and there is room.

        Returns:
            Whether there was room.
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
            self._largest = [(-each.bytes, next(self._order), each) for each in self._shelves.values()]
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
    """Bytes that `entry` takes in memory, overhead included."""
    return len(entry.vector) + OVERHEAD
