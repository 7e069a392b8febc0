"""Redis behind a guard: a short timeout on every call, and a pause after a failure.

Only this file knows Redis' client, which is imported only where Redis is configured.
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
"""How long calls may take that nobody waits for."""
_SCAN_COUNT = 100
"""Keys that one step of a scan looks at; the client takes some 20 microseconds of the event loop for each."""


class RedisUnavailableError(Exception):
    """Redis failed, was too slow, or is being left alone."""


class RedisGuard:
    """The calls to Redis that the cache makes.

    After a failure every call fails at once, until Redis has answered a ping: it is sent in the background, after a
    pause, so that no request waits for it.

    Args:
        settings: Where Redis is, and how long it may take.
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
        """Returns once Redis is in use."""
        await self._up.wait()

    async def close(self) -> None:
        """Ends the connections."""
        await end(self._keeper)
        await self._redis.aclose()

    async def get_many(self, keys: Sequence[bytes], *, in_background: bool = False) -> list[bytes | str | None]:
        """The value of each key, None where there is none.

        Raises:
            RedisUnavailableError: At the latest after what a request waits at most, or a call in the background.
        """
        timeout_s = _BACKGROUND_S if in_background else self._settings.redis_timeout_s
        return await self._guarded(lambda: self._redis.mget(keys), timeout_s)

    async def set_many(self, values: Mapping[bytes, bytes], ttl_s: int) -> None:
        """Writes `values`, each for `ttl_s` seconds. For the background. Raises as `get_many`."""

        async def write() -> None:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key, value in values.items():
                    pipe.set(key, value, ex=ttl_s)
                await pipe.execute()

        await self._guarded(write, _BACKGROUND_S)

    async def get_table(self, key: bytes) -> dict[bytes | str, bytes | str]:
        """The fields of the hash at `key`. For the background. Raises as `get_many`."""
        return await self._guarded(lambda: self._redis.hgetall(key), _BACKGROUND_S)

    async def set_table(self, key: bytes, fields: Mapping[bytes, bytes]) -> None:
        """Puts `fields` alone into the hash at `key`. For the background. Raises as `get_many`."""

        async def write() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(key)
                pipe.hset(key, items=[part for pair in fields.items() for part in pair])
                await pipe.execute()

        await self._guarded(write, _BACKGROUND_S)

    async def scan(self, pattern: bytes) -> AsyncGenerator[list[tuple[int, bytes]], None]:
        """The keys that match, some at a time, each after the milliseconds it has left. Raises as `get_many`."""
        cursor = 0
        while True:
            cursor, keys = await self._scan_once(cursor, pattern)
            if keys:
                yield list(zip(await self._left(keys), keys, strict=True))
            if not cursor:
                return

    async def _scan_once(self, cursor: int, pattern: bytes) -> tuple[int, list[bytes]]:
        at, keys = await self._guarded(lambda: self._redis.scan(cursor, pattern, _SCAN_COUNT), _BACKGROUND_S)
        return at, [key for key in keys if isinstance(key, bytes)]

    async def _left(self, keys: Sequence[bytes]) -> list[int]:
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
            self._leave_alone(error)
            raise RedisUnavailableError from error
        except ResponseError as error:
            # It answers, and refuses: it is full, say, or a replica. Reading may go on.
            self._metrics.redis_errors.inc()
            raise RedisUnavailableError from error
        except (RedisError, OSError) as error:
            self._metrics.redis_errors.inc()
            self._leave_alone(error)
            raise RedisUnavailableError from error

    def _leave_alone(self, error: Exception) -> None:
        if self._up.is_set():
            # The error's own words may hold an address or what was sent.
            _logger.warning("cache: Redis failed (%s); it is left alone until it answers", type(error).__name__)
        self._up.clear()
        self._metrics.redis_up.set(0)
        self._failed.set()

    async def _keep(self) -> None:
        told = False
        while True:
            if await self._answers():
                _logger.info("cache: Redis answers")
                self._failed.clear()
                self._up.set()
                self._metrics.redis_up.set(1)
                await self._failed.wait()
            elif not told:
                _logger.warning("cache: Redis does not answer; requests go on without it")
            told = True
            await asyncio.sleep(self._settings.redis_pause_s)

    async def _open_all(self) -> None:
        """Opens every connection, for which no request has the time; those that cannot be are left to later ones."""
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
        # How long a call waits is decided around it, the wait for a connection included.
        "timeout": None,
        # With a timeout of its own the client uses `asyncio.wait_for`, which before Python 3.12 forgets a cancellation
        # that meets the end of what it waits for.
        "socket_timeout": None,
        "socket_connect_timeout": _BACKGROUND_S,
        # A second try would outlast the timeout.
        "retry": Retry(NoBackoff(), 0),
        # Nothing of the third protocol is used, and it costs a call for each connection.
        "protocol": 2,
    }
    pool = BlockingConnectionPool.from_url(settings.redis_url.get_secret_value(), **options)
    return Redis.from_pool(pool)
