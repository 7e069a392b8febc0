"""Redis' client is needed only where Redis is configured."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_REDIS = """
import asyncio, sys
sys.modules["redis"] = None
from tests.unit.clients.cache.service import HashService
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.cache.settings import CacheSettings

async def main():
    cache = EmbeddingCache(HashService(), CacheSettings())
    await cache.embed(["a"])
    print((await cache.embed(["a"])).hits)
    await cache.close()

asyncio.run(main())
"""


def test_memory_cache_works_without_the_redis_client() -> None:
    command = [sys.executable, "-c", WITHOUT_REDIS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_configured_redis_requires_the_redis_client() -> None:
    given = WITHOUT_REDIS.replace("CacheSettings()", 'CacheSettings(redis_url="redis://127.0.0.1:1")')
    done = subprocess.run([sys.executable, "-c", given], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "redis" in done.stderr
