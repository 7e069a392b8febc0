"""The Redis level: entries that outlive a process and that several share."""

from __future__ import annotations

import asyncio
import heapq
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from itertools import islice

from torchless.clients.cache.entry import Entry, packed, unpacked
from torchless.clients.cache.keys import VERSION, Scope, Served
from torchless.clients.cache.memory import size_of
from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.cache.redis_guard import RedisGuard, RedisUnavailableError
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.cache.tasks import end, spawn

_MIB = 1024 * 1024
_READ_TOGETHER = 128
"""Entries in one call when memory is filled."""
_WRITTEN_TOGETHER = 32
"""Entries in one write. Redis' client takes some 20 microseconds of the event loop for each, all of them at once."""


class RedisLevel:
    """Entries in Redis, looked up within its timeout and written in the background.

    Keys are `<namespace>:<version>:<model and revision>:<tenant>:<digest>`, the three last as hexadecimal hashes. Under
    `<namespace>:<version>:models` stands what was served last.

    Args:
        settings: Where Redis is, and the bounds.
        metrics: Where to count.
    """

    def __init__(self, settings: CacheSettings, metrics: CacheMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._namespace = settings.namespace.encode() + b":"
        self._models_key = self._namespace + b"%d:models" % VERSION
        self._models: Mapping[str, Served] = {}
        self._waiting: deque[tuple[bytes, Entry]] = deque()
        self._waiting_bytes = 0
        self._work = asyncio.Event()
        self.guard = RedisGuard(settings, metrics)
        """Redis itself."""
        self._writer = spawn(self._write(), "the writer to Redis")

    async def close(self) -> None:
        """Ends the writer and the connections; what waits to be written is not."""
        await end(self._writer)
        await self.guard.close()

    async def get(self, scope: Scope, digests: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries of `digests` that are there; none where Redis fails or is slow."""
        if not self.guard.up:
            return {}
        prefix = self._namespace + scope.redis_prefix.encode()
        keys = [prefix + digest.hex().encode() for digest in digests]
        try:
            values = await self.guard.get_many(keys)
        except RedisUnavailableError:
            return {}
        found = self._read(keys, values)
        entries = {digest: entry for digest, entry in zip(digests, found, strict=True) if entry is not None}
        self._metrics.redis_hits.inc(len(entries))
        self._metrics.redis_misses.inc(len(digests) - len(entries))
        return entries

    def put(self, scope: Scope, digests: Sequence[bytes], entries: Sequence[Entry]) -> None:
        """Writes `entries` soon, or drops them where too much waits already or Redis is down."""
        if not self.guard.up:
            self._metrics.dropped_down.inc(len(entries))
            return
        prefix = self._namespace + scope.redis_prefix.encode()
        most = self._settings.redis_queue_mib * _MIB
        for digest, entry in zip(digests, entries, strict=True):
            key = prefix + digest.hex().encode()
            size = _waiting_size(key, entry)
            if self._waiting_bytes + size > most:
                self._metrics.dropped_full.inc()
                continue
            self._waiting.append((key, entry))
            self._waiting_bytes += size
        self._work.set()

    def remember(self, models: Mapping[str, Served]) -> None:
        """Writes down what is served, once Redis is up."""
        self._models = dict(models)
        self._work.set()

    async def remembered(self) -> dict[str, Served]:
        """What was served when it was last written down; nothing where Redis fails."""
        try:
            table = await self.guard.get_table(self._models_key)
        except RedisUnavailableError:
            return {}
        return dict(filter(None, (_model_of(field, value) for field, value in table.items())))

    async def newest(
        self, served: Served, most: int, look_s: float
    ) -> AsyncGenerator[list[tuple[str, bytes, Entry]], None]:
        """At most `most` entries of `served`, those written last first, each after its tenant's tag and its digest.

        Args:
            served: Whose.
            most: How many.
            look_s: After so many seconds the newest are those found until then.

        Raises:
            RedisUnavailableError: Redis failed.
        """
        keys = await self._newest_keys(served, most, look_s)
        for start in range(0, len(keys), _READ_TOGETHER):
            some = keys[start : start + _READ_TOGETHER]
            entries = self._read(some, await self.guard.get_many(some, in_background=True))
            yield [(*_parts(key), entry) for key, entry in zip(some, entries, strict=True) if entry is not None]

    async def _newest_keys(self, served: Served, most: int, look_s: float) -> list[bytes]:
        # Every entry was written with the same time to live, so those that have most of it left are the newest.
        newest: list[tuple[int, bytes]] = []
        until = time.monotonic() + look_s
        pattern = self._namespace + b"%d:%s:*" % (VERSION, served.tag.encode())
        async with aclosing(self.guard.scan(pattern)) as found:
            async for some in found:
                for each in some:
                    if len(newest) < most:
                        heapq.heappush(newest, each)
                    else:
                        heapq.heappushpop(newest, each)
                if time.monotonic() > until:
                    break
        return [key for _, key in sorted(newest, reverse=True)]

    def _read(self, keys: Sequence[bytes], values: Sequence[object]) -> list[Entry | None]:
        now = int(time.time())
        return [
            None if value is None else self._entry(key, value, now) for key, value in zip(keys, values, strict=True)
        ]

    def _entry(self, key: bytes, value: object, now: int) -> Entry | None:
        entry = unpacked(value, key)
        if entry is None:
            self._metrics.redis_corrupt.inc()
            return None
        if entry.made_at <= now - self._settings.ttl_s:  # written with a longer time to live than is configured now
            return None
        # Another machine's clock may be ahead.
        return entry if entry.made_at <= now else entry._replace(made_at=now)

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            await self.guard.wait_up()
            self._work.clear()
            try:
                await self._write_models()
                while self._waiting:
                    await self._write_some()
            except RedisUnavailableError:
                self._drop_waiting()
                await asyncio.sleep(self._settings.redis_pause_s)
                if self._models:
                    self._work.set()

    async def _write_models(self) -> None:
        models = self._models
        if models:
            fields = {name.encode(): json.dumps([each.model, each.revision]).encode() for name, each in models.items()}
            await self.guard.set_table(self._models_key, fields)
        if self._models is models:
            self._models = {}

    async def _write_some(self) -> None:
        some = list(islice(self._waiting, _WRITTEN_TOGETHER))
        await self.guard.set_many({key: packed(entry, key) for key, entry in some}, self._settings.ttl_s)
        # Until now they were waiting, and counted.
        for key, entry in some:
            self._waiting.popleft()
            self._waiting_bytes -= _waiting_size(key, entry)
        self._metrics.written.inc(len(some))

    def _drop_waiting(self) -> None:
        self._metrics.dropped_down.inc(len(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0


def _waiting_size(key: bytes, entry: Entry) -> int:
    return len(key) + size_of(entry)


def _parts(key: bytes) -> tuple[str, bytes]:
    """Tenant's tag and digest of an entry's key."""
    _, tenant, digest = key.rsplit(b":", 2)
    return tenant.decode(), bytes.fromhex(digest.decode())


def _model_of(field: bytes | str, value: bytes | str) -> tuple[str, Served] | None:
    """A name and what it stands for; None where somebody else wrote the field."""
    try:
        model, revision = json.loads(value)
        name = field.decode() if isinstance(field, bytes) else field
    except (ValueError, TypeError):
        return None
    return (name, Served(model, revision)) if isinstance(model, str) and isinstance(revision, str) else None
