"""Caches in front of a service, with a real Redis behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tests.conftest import require_program
from tests.integration.cache.redis_server import RedisServer
from tests.unit.clients.cache.service import HashService
from tests.waiting import until
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.cache.settings import CacheSettings


@dataclass
class Cache:
    """A cache and what tests check."""

    cache: EmbeddingCache
    registry: CollectorRegistry

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"torchless_cache_{name}", labels) or 0.0

    async def has(self, name: str, value: float, **labels: str) -> None:
        """Returns once a metric has reached a value; the test's own timeout is the limit."""
        await until(lambda: self.value(name, **labels) >= value)

    async def is_up(self, up: bool = True) -> None:
        """Returns once Redis is in use, or no longer."""
        await until(lambda: self.value("redis_up") == up)

    async def has_written(self, entries: int) -> None:
        await self.has("redis_written_entries_total", entries)


MakeCache = Callable[..., Cache]


@pytest.fixture(scope="session")
def _program() -> str:
    return require_program("redis-server", "Debian's redis-server")


@pytest.fixture
def redis_server(_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(_program, tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """A separate client."""
    async with Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def service() -> HashService:
    return HashService()


@pytest.fixture
async def make_cache(service: HashService, redis_server: RedisServer) -> AsyncIterator[MakeCache]:
    """Makes a cache before the service; settings by name."""
    made: list[EmbeddingCache] = []

    def make(of: Any = None, **settings: Any) -> Cache:
        chosen = {"redis_url": redis_server.url, "redis_pause_s": 0.05, "redis_timeout_s": 0.5} | settings
        registry = CollectorRegistry()
        metrics = CacheMetrics(registry)
        made.append(EmbeddingCache(of or service, CacheSettings(**chosen), metrics=metrics))
        return Cache(made[-1], registry)

    yield make
    for each in made:
        await each.close()
