"""The two levels of the cache as one: memory, and Redis behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from torchless.clients.cache.entry import Entry, ModelRevision, Scope
from torchless.clients.cache.memory import OVERHEAD, MemoryLevel, size_of
from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.cache.redis_guard import RedisUnavailableError
from torchless.clients.cache.redis_level import RedisLevel
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.deadline import Deadline

_MIB = 1024 * 1024
_logger = logging.getLogger(__name__)


class Store:
    """Entries in memory and, if configured, in Redis.

    Args:
        settings: The cache's settings.
        metrics: Where lookups and entries are counted.
    """

    def __init__(self, settings: CacheSettings, metrics: CacheMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._memory = MemoryLevel(int(settings.memory_mib * _MIB), settings.ttl_s)
        self._evictions_shown = 0
        self._redis = RedisLevel(settings, metrics) if settings.redis_url.get_secret_value() else None

    async def close(self) -> None:
        """Closes the connections to Redis."""
        if self._redis is not None:
            await self._redis.close()

    async def get(self, scope: Scope, digests: Sequence[bytes], deadline: Deadline) -> dict[bytes, Entry]:
        """The entries of `digests` that are in either level. Those from Redis are then in memory as well.

        Redis is asked only if its timeout ends before `deadline`.
        """
        found = self._memory.get(scope.tenant_tag, digests)
        if len(found) == len(digests):
            self._metrics.memory_hits.inc(len(digests))
            return found
        hits = sum(digest in found for digest in digests) if found else 0
        self._metrics.memory_hits.inc(hits)
        self._metrics.memory_misses.inc(len(digests) - hits)
        if self._redis is None or hits == len(digests) or deadline.remaining_s <= self._settings.redis_timeout_s:
            return found
        missing = [digest for digest in dict.fromkeys(digests) if digest not in found]
        from_redis = await self._redis.get(scope, missing)
        self._hold(scope, list(from_redis), list(from_redis.values()))
        # Inputs that were in flight may have been computed while Redis was asked.
        return found | self._memory.get(scope.tenant_tag, missing) | from_redis

    def put(self, scope: Scope, digests: Sequence[bytes], entries: Sequence[Entry]) -> None:
        """Stores `entries` in memory now, and in Redis in the background."""
        self._hold(scope, digests, entries)
        if self._redis is not None:
            self._redis.put(scope, digests, entries)

    def remember(self, models: Mapping[str, ModelRevision]) -> None:
        """Writes to Redis which models are served."""
        if self._redis is not None:
            self._redis.remember(models)

    async def remembered(self) -> dict[str, ModelRevision]:
        """The models that Redis remembers as served, once Redis is up."""
        if self._redis is None:
            return {}
        await self._redis.guard.wait_up()
        return await self._redis.remembered()

    async def warm(self, models: set[ModelRevision]) -> None:
        """Fills the memory level with entries of `models` from Redis, once Redis is up.

        Reads the newest entries first, within the limits of the settings, and evicts nothing that requests stored.
        """
        if self._redis is None:
            return
        await self._redis.guard.wait_up()
        warming = _Warming(self._memory, self._redis, self._settings, self._metrics)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.warm_s):
                for model in models:
                    # Redis may hold millions of keys: half of the time is for listing some of them.
                    await warming.read(model, self._settings.warm_s / 2 / len(models))
        except (TimeoutError, RedisUnavailableError) as error:
            _logger.warning("cache: warming ended early (%s)", type(error).__name__)
        _logger.info("cache: %d entries read from Redis in %.1f s", warming.entries, time.monotonic() - started)
        self._show()

    def _hold(self, scope: Scope, digests: Sequence[bytes], entries: Sequence[Entry]) -> None:
        self._memory.put(scope.tenant_tag, digests, entries)
        self._show()

    def _show(self) -> None:
        self._metrics.bytes.set(self._memory.bytes)
        self._metrics.entries.set(self._memory.entries)
        evictions = self._memory.evictions
        if evictions != self._evictions_shown:
            self._metrics.evictions.inc(evictions - self._evictions_shown)
            self._evictions_shown = evictions


class _Warming:
    """Reads entries from Redis into memory until the limit is reached."""

    def __init__(self, memory: MemoryLevel, redis: RedisLevel, settings: CacheSettings, metrics: CacheMetrics) -> None:
        self._memory = memory
        self._redis = redis
        self._metrics = metrics
        self._free_bytes = int(min(settings.warm_mib, settings.memory_mib) * _MIB)
        self.entries = 0
        """Entries read so far."""

    async def read(self, model: ModelRevision, list_s: float) -> None:
        """Reads entries of `model`; keys are listed for at most `list_s` seconds."""
        if self._free_bytes < OVERHEAD:
            return
        async with aclosing(self._redis.newest(model, self._free_bytes // OVERHEAD, list_s)) as batches:
            async for batch in batches:
                for tenant, digest, entry in batch:
                    if not self._take(tenant, digest, entry):
                        return

    def _take(self, tenant: str, digest: bytes, entry: Entry) -> bool:
        self._free_bytes -= size_of(entry)
        if self._free_bytes < 0 or not self._memory.put_older(tenant, digest, entry):
            return False
        self.entries += 1
        self._metrics.warmed.inc()
        return True
