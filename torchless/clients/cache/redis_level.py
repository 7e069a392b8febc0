"""The Redis level: entries that outlive a process and that several processes share."""

from __future__ import annotations

import asyncio
import heapq
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from itertools import islice

from torchless.clients.cache.entry import VERSION, Entry, ModelRevision, Scope, pack, unpack
from torchless.clients.cache.memory import size_of
from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.cache.redis_guard import RedisGuard, RedisUnavailableError
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.cache.tasks import end, spawn

_MIB = 1024 * 1024
_READ_BATCH = 128
"""Entries per call while memory is warmed."""
_WRITE_BATCH = 32
"""Entries per write. The Redis client blocks the event loop for about 20 microseconds per entry."""


class RedisLevel:
    """Entries in Redis, read within a timeout and written in the background.

    Keys are `<namespace>:<version>:<model and revision>:<tenant>:<digest>`, the last three as hexadecimal hashes. The
    hash at `<namespace>:<version>:models` holds which models were served last.

    Args:
        settings: URL, timeouts and limits.
        metrics: Where lookups and writes are counted.
    """

    def __init__(self, settings: CacheSettings, metrics: CacheMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._namespace = settings.namespace.encode() + b":"
        self._models_key = self._namespace + b"%d:models" % VERSION
        self._models: Mapping[str, ModelRevision] = {}
        self._waiting: deque[tuple[bytes, Entry]] = deque()
        self._waiting_bytes = 0
        self._work = asyncio.Event()
        self.guard = RedisGuard(settings, metrics)
        """The calls to Redis."""
        self._writer = spawn(self._write(), "the writer to Redis")

    async def close(self) -> None:
        """Ends the writer and closes the connections. Entries that still wait are not written."""
        await end(self._writer)
        await self.guard.close()

    async def get(self, scope: Scope, digests: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries of `digests` that Redis holds; none if it fails or is too slow."""
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
        """Writes `entries` in the background, or drops them if the queue is full or Redis is down."""
        if not self.guard.up:
            self._metrics.dropped_down.inc(len(entries))
            return
        prefix = self._namespace + scope.redis_prefix.encode()
        limit = self._settings.redis_queue_mib * _MIB
        for digest, entry in zip(digests, entries, strict=True):
            key = prefix + digest.hex().encode()
            size = _waiting_size(key, entry)
            if self._waiting_bytes + size > limit:
                self._metrics.dropped_full.inc()
                continue
            self._waiting.append((key, entry))
            self._waiting_bytes += size
        self._work.set()

    def remember(self, models: Mapping[str, ModelRevision]) -> None:
        """Writes which models are served, once Redis is up."""
        self._models = dict(models)
        self._work.set()

    async def remembered(self) -> dict[str, ModelRevision]:
        """The models that were written last; none if Redis fails."""
        try:
            table = await self.guard.get_table(self._models_key)
        except RedisUnavailableError:
            return {}
        return dict(filter(None, (_model_of(field, value) for field, value in table.items())))

    async def newest(
        self, model: ModelRevision, limit: int, list_s: float
    ) -> AsyncGenerator[list[tuple[str, bytes, Entry]], None]:
        """Yields batches of the newest entries of `model`, each as tenant tag, digest and entry.

        Args:
            model: Whose entries.
            limit: Most entries.
            list_s: Longest time to list keys, in seconds; the newest of the keys listed until then are read.

        Raises:
            RedisUnavailableError: Redis failed.
        """
        keys = await self._newest_keys(model, limit, list_s)
        for start in range(0, len(keys), _READ_BATCH):
            batch = keys[start : start + _READ_BATCH]
            entries = self._read(batch, await self.guard.get_many(batch, in_background=True))
            yield [(*_parts(key), entry) for key, entry in zip(batch, entries, strict=True) if entry is not None]

    async def _newest_keys(self, model: ModelRevision, limit: int, list_s: float) -> list[bytes]:
        # All entries are written with the same time to live, so those with the most time left are the newest.
        newest: list[tuple[int, bytes]] = []
        until = time.monotonic() + list_s
        pattern = self._namespace + b"%d:%s:*" % (VERSION, model.tag.encode())
        async with aclosing(self.guard.scan(pattern)) as batches:
            async for batch in batches:
                for ttl_and_key in batch:
                    if len(newest) < limit:
                        heapq.heappush(newest, ttl_and_key)
                    else:
                        heapq.heappushpop(newest, ttl_and_key)
                if time.monotonic() > until:
                    break
        return [key for _, key in sorted(newest, reverse=True)]

    def _read(self, keys: Sequence[bytes], values: Sequence[object]) -> list[Entry | None]:
        now = int(time.time())
        return [
            None if value is None else self._entry(key, value, now) for key, value in zip(keys, values, strict=True)
        ]

    def _entry(self, key: bytes, value: object, now: int) -> Entry | None:
        entry = unpack(value, key)
        if entry is None:
            self._metrics.redis_corrupt.inc()
            return None
        if entry.made_at <= now - self._settings.ttl_s:  # the configured time to live was longer then
            return None
        # The clock of another machine may be ahead.
        return entry if entry.made_at <= now else entry._replace(made_at=now)

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            await self.guard.wait_up()
            self._work.clear()
            try:
                await self._write_models()
                while self._waiting:
                    await self._write_batch()
            except RedisUnavailableError:
                self._drop_waiting()
                await asyncio.sleep(self._settings.redis_pause_s)
                if self._models:
                    self._work.set()

    async def _write_models(self) -> None:
        models = self._models
        if models:
            fields = {name.encode(): json.dumps([model.id, model.revision]).encode() for name, model in models.items()}
            await self.guard.set_table(self._models_key, fields)
        if self._models is models:
            self._models = {}

    async def _write_batch(self) -> None:
        batch = list(islice(self._waiting, _WRITE_BATCH))
        await self.guard.set_many({key: pack(entry, key) for key, entry in batch}, self._settings.ttl_s)
        # Only now do they stop counting towards the limit of the queue.
        for key, entry in batch:
            self._waiting.popleft()
            self._waiting_bytes -= _waiting_size(key, entry)
        self._metrics.written.inc(len(batch))

    def _drop_waiting(self) -> None:
        self._metrics.dropped_down.inc(len(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0


def _waiting_size(key: bytes, entry: Entry) -> int:
    return len(key) + size_of(entry)


def _parts(key: bytes) -> tuple[str, bytes]:
    """Tenant tag and digest of an entry's key."""
    _, tenant, digest = key.rsplit(b":", 2)
    return tenant.decode(), bytes.fromhex(digest.decode())


def _model_of(field: bytes | str, value: bytes | str) -> tuple[str, ModelRevision] | None:
    """A name and what it stands for; None for a field that the cache did not write."""
    try:
        model, revision = json.loads(value)
        name = field.decode() if isinstance(field, bytes) else field
    except (ValueError, TypeError):
        return None
    return (name, ModelRevision(model, revision)) if isinstance(model, str) and isinstance(revision, str) else None
