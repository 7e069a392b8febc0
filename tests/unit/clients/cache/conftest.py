"""Caches that end with their test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.unit.clients.cache.service import HashService
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.cache.settings import CacheSettings

MakeCache = Callable[..., EmbeddingCache]


@pytest.fixture
def service() -> HashService:
    return HashService()


@pytest.fixture
async def make_cache(service: HashService) -> AsyncIterator[MakeCache]:
    """Makes a cache before the service; settings by name."""
    made: list[EmbeddingCache] = []

    def make(
        *, of: HashService | None = None, arguments: dict[str, Any] | None = None, **settings: Any
    ) -> EmbeddingCache:
        made.append(EmbeddingCache(of or service, CacheSettings(**settings), **arguments or {}))
        return made[-1]

    yield make
    for each in made:
        await each.close()
