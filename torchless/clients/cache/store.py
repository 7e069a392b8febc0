"""The two levels as one: memory, and Redis behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torchless.clients.cache.call import Call
from torchless.clients.cache.entry import Entry
from torchless.clients.cache.instruments import CacheInstruments
from torchless.clients.cache.keys import Scope, Served
from torchless.clients.cache.memory import MemoryLevel
from torchless.clients.cache.redis_level import RedisLevel
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.cache.warming import warm

_MIB = 1024 * 1024


class Store:
    """Entries in memory and, where it is configured, in Redis.

    Args:
        settings: The cache's settings.
        instruments: Where to count.
    """

    def __init__(self, settings: CacheSettings, instruments: CacheInstruments) -> None:
        self._settings = settings
        self._instruments = instruments
        self._memory = MemoryLevel(int(settings.memory_mib * _MIB), settings.ttl_s)
        self._evictions_told = 0
        self._redis = RedisLevel(settings, instruments) if settings.redis_url.get_secret_value() else None

    async def close(self) -> None:
        """Ends what Redis needs."""
        if self._redis is not None:
            await self._redis.close()

    async def get(self, call: Call, scope: Scope, digests: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries of `digests` that are in either level; those from Redis are then in memory as well."""
        found = self._memory.get(scope.tenant_tag, digests)
        if len(found) == len(digests):
            self._instruments.memory_hits.inc(len(digests))
            return found
        hits = sum(digest in found for digest in digests) if found else 0
        self._instruments.memory_hits.inc(hits)
        self._instruments.memory_misses.inc(len(digests) - hits)
        if self._redis is not None and hits < len(digests) and call.has_time(self._settings.redis_timeout_s):
            missing = [digest for digest in dict.fromkeys(digests) if digest not in found]
            from_redis = await self._redis.get(scope, missing)
            self._hold(scope, list(from_redis), list(from_redis.values()))
            # What was being computed may have come while Redis was asked.
            found |= self._memory.get(scope.tenant_tag, missing) | from_redis
        return found

    def put(self, scope: Scope, digests: Sequence[bytes], entries: Sequence[Entry]) -> None:
        """Holds `entries` in memory now and in Redis soon."""
        self._hold(scope, digests, entries)
        if self._redis is not None:
            self._redis.put(scope, digests, entries)

    def remember(self, models: Mapping[str, Served]) -> None:
        """Writes down in Redis what is served."""
        if self._redis is not None:
            self._redis.remember(models)

    async def remembered(self) -> dict[str, Served]:
        """What Redis remembers to have been served, once it is up."""
        if self._redis is None:
            return {}
        await self._redis.guard.wait_up()
        return await self._redis.remembered()

    async def warm(self, models: set[Served]) -> None:
        """Fills the memory level with entries of `models` from Redis, once it is up."""
        if self._redis is None:
            return
        await self._redis.guard.wait_up()
        await warm(self._memory, self._redis, models, self._settings, self._instruments)
        self._tell()

    def _hold(self, scope: Scope, digests: Sequence[bytes], entries: Sequence[Entry]) -> None:
        self._memory.put(scope.tenant_tag, digests, entries)
        self._tell()

    def _tell(self) -> None:
        self._instruments.bytes.set(self._memory.bytes)
        self._instruments.entries.set(self._memory.entries)
        evictions = self._memory.evictions
        if evictions != self._evictions_told:
            self._instruments.evictions.inc(evictions - self._evictions_told)
            self._evictions_told = evictions
