"""Fills the memory level from Redis at start, beside the requests."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing

from torchless.clients.cache.entry import Entry
from torchless.clients.cache.instruments import CacheInstruments
from torchless.clients.cache.keys import Served
from torchless.clients.cache.memory import OVERHEAD, MemoryLevel, size_of
from torchless.clients.cache.redis_guard import RedisUnavailableError
from torchless.clients.cache.redis_level import RedisLevel
from torchless.clients.cache.settings import CacheSettings

_MIB = 1024 * 1024
_logger = logging.getLogger(__name__)


async def warm(
    memory: MemoryLevel,
    redis: RedisLevel,
    models: set[Served],
    settings: CacheSettings,
    instruments: CacheInstruments,
) -> int:
    """Reads the newest entries of `models` from Redis into memory, within the bounds of the settings.

    What requests bring meanwhile is not pushed out.

    Returns:
        How many entries were read.
    """
    # Of many millions of entries not all are looked at: half of the time is for reading some.
    look_s = settings.warm_s / 2 / max(1, len(models))
    warming = _Warming(memory, settings, instruments, look_s)
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
    def __init__(
        self, memory: MemoryLevel, settings: CacheSettings, instruments: CacheInstruments, look_s: float
    ) -> None:
        self._memory = memory
        self._room = int(min(settings.warm_mib, settings.memory_mib) * _MIB)
        self._look_s = look_s
        self._instruments = instruments
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
        self._instruments.warmed.inc()
        return True
