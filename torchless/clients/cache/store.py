"""The two levels as one: memory, and Redis behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from torchless.clients.cache.call import Call
from torchless.clients.cache.entry import Entry
from torchless.clients.cache.keys import Scope, Served
from torchless.clients.cache.memory import OVERHEAD, MemoryLevel, size_of
from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.cache.redis_guard import RedisUnavailableError
from torchless.clients.cache.redis_level import RedisLevel
from torchless.clients.cache.settings import CacheSettings

_MIB = 1024 * 1024
_logger = logging.getLogger(__name__)


class Store:
    """Entries in memory and, where it is configured, in Redis.

    Args:
        settings: The cache's settings.
        metrics: Where to count.
    """

    def __init__(self, settings: CacheSettings, metrics: CacheMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._memory = MemoryLevel(int(settings.memory_mib * _MIB), settings.ttl_s)
        self._evictions_told = 0
        self._redis = RedisLevel(settings, metrics) if settings.redis_url.get_secret_value() else None

    async def close(self) -> None:
        """Ends what Redis needs."""
        if self._redis is not None:
            await self._redis.close()

    async def get(self, call: Call, scope: Scope, digests: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries of `digests` that are in either level; those from Redis are then in memory as well."""
        found = self._memory.get(scope.tenant_tag, digests)
        if len(found) == len(digests):
            self._metrics.memory_hits.inc(len(digests))
            return found
        hits = sum(digest in found for digest in digests) if found else 0
        self._metrics.memory_hits.inc(hits)
        self._metrics.memory_misses.inc(len(digests) - hits)
        if (
            self._redis is not None
            and hits < len(digests)
            and call.deadline.remaining_s > self._settings.redis_timeout_s
        ):
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
        await _warm(self._memory, self._redis, models, self._settings, self._metrics)
        self._tell()

    def _hold(self, scope: Scope, digests: Sequence[bytes], entries: Sequence[Entry]) -> None:
        self._memory.put(scope.tenant_tag, digests, entries)
        self._tell()

    def _tell(self) -> None:
        self._metrics.bytes.set(self._memory.bytes)
        self._metrics.entries.set(self._memory.entries)
        evictions = self._memory.evictions
        if evictions != self._evictions_told:
            self._metrics.evictions.inc(evictions - self._evictions_told)
            self._evictions_told = evictions


async def _warm(
    memory: MemoryLevel,
    redis: RedisLevel,
    models: set[Served],
    settings: CacheSettings,
    metrics: CacheMetrics,
) -> int:
    """Reads the newest entries of `models` from Redis into memory, within the bounds of the settings.

    What requests bring meanwhile is not pushed out.

    Returns:
        How many entries were read.
    """
    # Of many millions of entries not all are looked at: half of the time is for reading some.
    look_s = settings.warm_s / 2 / max(1, len(models))
    warming = _Warming(memory, settings, metrics, look_s)
    started = time.monotonic()
    try:
        async with asyncio.timeout(settings.warm_s):
            for served in models:
                await warming.read(redis, served)
    except (TimeoutError, RedisUnavailableError) as error:
        _logger.warning("cache: warming ended early (%s)", type(error).__name__)
    _logger.info("cache: %d entries read from Redis in %.1f s", warming.entries, time.monotonic() - started)
    return warming.entries


class _Warming:
    def __init__(self, memory: MemoryLevel, settings: CacheSettings, metrics: CacheMetrics, look_s: float) -> None:
        self._memory = memory
        self._room = int(min(settings.warm_mib, settings.memory_mib) * _MIB)
        self._look_s = look_s
        self._metrics = metrics
        self.entries = 0

    async def read(self, redis: RedisLevel, served: Served) -> None:
        """Reads entries of `served` until there is no room."""
        if self._room < OVERHEAD:
            return
        async with aclosing(redis.newest(served, self._room // OVERHEAD, self._look_s)) as found:
            async for some in found:
                for each in some:
                    if not self._take(*each):
                        return

    def _take(self, tenant: str, digest: bytes, entry: Entry) -> bool:
        self._room -= size_of(entry)
        if self._room < 0 or not self._memory.put_older(tenant, digest, entry):
            return False
        self.entries += 1
        self._metrics.warmed.inc()
        return True
