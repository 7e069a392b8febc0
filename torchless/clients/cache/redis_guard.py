"""Calls to Redis: a short timeout on every call, and a pause after a failure.

Only this file uses the Redis client, and imports it only if Redis is configured.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.cache.tasks import end, spawn

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")
_logger = logging.getLogger(__name__)
_BACKGROUND_S = 2.0
"""Timeout of calls that no request waits for."""
_SCAN_COUNT = 100
"""Keys per step of a scan; the client blocks the event loop for about 20 microseconds per key."""


class RedisUnavailableError(Exception):
    """Redis failed, was too slow, or is paused after a failure."""


class RedisGuard:
    """The calls to Redis that the cache makes.

    After a failure every call fails at once, until Redis answers a ping. The ping is sent in the background after a
    pause, so that no request waits for it.

    Args:
        settings: URL and timeouts of Redis.
        metrics: Where failures are counted.
    """

    def __init__(self, settings: CacheSettings, metrics: CacheMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._redis = _client(settings)
        self._up = asyncio.Event()
        self._failed = asyncio.Event()
        metrics.redis_up.set(0)
        self._keeper = spawn(self._keep(), "the watch of Redis")

    @property
    def up(self) -> bool:
        """Whether Redis is in use."""
        return self._up.is_set()

    async def wait_up(self) -> None:
        """Waits until Redis is in use."""
        await self._up.wait()

    async def close(self) -> None:
        """Closes the connections."""
        await end(self._keeper)
        await self._redis.aclose()

    async def get_many(self, keys: Sequence[bytes], *, in_background: bool = False) -> list[bytes | str | None]:
        """The value of each key; None for a missing one.

        Raises:
            RedisUnavailableError: Redis failed, or did not answer within the timeout of a request or of the background.
        """
        timeout_s = _BACKGROUND_S if in_background else self._settings.redis_timeout_s
        return await self._guarded(lambda: self._redis.mget(keys), timeout_s)

    async def set_many(self, values: Mapping[bytes, bytes], ttl_s: int) -> None:
        """Writes `values` for `ttl_s` seconds, in the background. Raises as `get_many`."""

        async def write() -> None:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key, value in values.items():
                    pipe.set(key, value, ex=ttl_s)
                await pipe.execute()

        await self._guarded(write, _BACKGROUND_S)

    async def get_table(self, key: bytes) -> dict[bytes | str, bytes | str]:
        """The fields of the hash at `key`, read in the background. Raises as `get_many`."""
        return await self._guarded(lambda: self._redis.hgetall(key), _BACKGROUND_S)

    async def set_table(self, key: bytes, fields: Mapping[bytes, bytes]) -> None:
        """Replaces the hash at `key` by `fields`, in the background. Raises as `get_many`."""

        async def write() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(key)
                pipe.hset(key, items=[part for pair in fields.items() for part in pair])
                await pipe.execute()

        await self._guarded(write, _BACKGROUND_S)

    async def scan(self, pattern: bytes) -> AsyncGenerator[list[tuple[int, bytes]], None]:
        """Yields batches of matching keys, each with its time to live in milliseconds. Raises as `get_many`."""
        cursor = 0
        while True:
            cursor, keys = await self._scan_once(cursor, pattern)
            if keys:
                yield list(zip(await self._ttls_ms(keys), keys, strict=True))
            if not cursor:
                return

    async def _scan_once(self, cursor: int, pattern: bytes) -> tuple[int, list[bytes]]:
        at, keys = await self._guarded(lambda: self._redis.scan(cursor, pattern, _SCAN_COUNT), _BACKGROUND_S)
        return at, [key for key in keys if isinstance(key, bytes)]

    async def _ttls_ms(self, keys: Sequence[bytes]) -> list[int]:
        async def read() -> list[int]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.pttl(key)
                return await pipe.execute()

        return await self._guarded(read, _BACKGROUND_S)

    async def _guarded(self, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        if not self._up.is_set():
            raise RedisUnavailableError
        from redis.exceptions import RedisError, ResponseError

        try:
            async with asyncio.timeout(timeout_s):
                return await call()
        except TimeoutError as error:
            self._metrics.redis_timeouts.inc()
            self._pause(error)
            raise RedisUnavailableError from error
        except ResponseError as error:
            # Redis answers and refuses, because it is full or a replica, for instance. Reads may go on.
            self._metrics.redis_errors.inc()
            raise RedisUnavailableError from error
        except (RedisError, OSError) as error:
            self._metrics.redis_errors.inc()
            self._pause(error)
            raise RedisUnavailableError from error

    def _pause(self, error: Exception) -> None:
        if self._up.is_set():
            # The error's message may hold an address or data.
            _logger.warning("cache: Redis failed (%s); paused until it answers", type(error).__name__)
        self._up.clear()
        self._metrics.redis_up.set(0)
        self._failed.set()

    async def _keep(self) -> None:
        logged = False
        while True:
            if await self._answers():
                _logger.info("cache: Redis answers again")
                self._failed.clear()
                self._up.set()
                self._metrics.redis_up.set(1)
                await self._failed.wait()
            elif not logged:
                _logger.warning("cache: Redis does not answer; requests are served without it")
            logged = True
            await asyncio.sleep(self._settings.redis_pause_s)

    async def _open_all(self) -> None:
        """Opens all connections, because a request has no time for that. A connection that fails is opened later."""
        pings = {asyncio.ensure_future(self._redis.ping()) for _ in range(self._settings.redis_connections)}
        try:
            await asyncio.wait(pings, timeout=_BACKGROUND_S)
        finally:
            for ping in pings:
                ping.cancel()
            await asyncio.gather(*pings, return_exceptions=True)

    async def _answers(self) -> bool:
        from redis.exceptions import RedisError

        try:
            await self._open_all()
            async with asyncio.timeout(self._settings.redis_timeout_s):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError):
            return False
        return True


def _client(settings: CacheSettings) -> Redis:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {
        "max_connections": settings.redis_connections,
        # The timeout around each call includes the wait for a connection.
        "timeout": None,
        # With a timeout here the client uses `asyncio.wait_for`, which before Python 3.12 loses a cancellation that
        # arrives as the awaited call ends.
        "socket_timeout": None,
        "socket_connect_timeout": _BACKGROUND_S,
        # A retry would outlast the timeout.
        "retry": Retry(NoBackoff(), 0),
        # Version 3 of the protocol costs a call per connection, and none of it is used.
        "protocol": 2,
    }
    pool = BlockingConnectionPool.from_url(settings.redis_url.get_secret_value(), **options)
    return Redis.from_pool(pool)
