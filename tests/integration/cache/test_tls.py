"""Redis over TLS."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_program
from tests.integration.cache.conftest import MakeCache
from tests.integration.cache.redis_server import RedisServer
from tests.unit.clients.cache.service import answer_of, same
from tests.waiting import until


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for loopback, and its key."""
    certificate, key = tmp_path / "redis.crt", tmp_path / "redis.key"
    command = [require_program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return certificate, key


@pytest.fixture
def tls_server(_program: str, tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[RedisServer]:
    server = RedisServer(_program, tmp_path, certificate)
    server.start()
    yield server
    server.close()


async def test_two_processes_share_entries_over_tls(
    make_cache: MakeCache, tls_server: RedisServer, certificate: tuple[Path, Path]
) -> None:
    trusting = f"{tls_server.url}?ssl_ca_certs={certificate[0]}"
    writer, reader = make_cache(redis_url=trusting), make_cache(redis_url=trusting, warm_mib=0)
    await writer.is_up()
    await reader.is_up()
    await writer.cache.embed(["a"])
    await writer.has_written(1)
    answer = await reader.cache.embed(["a"])
    assert answer.hits == 1
    assert same(answer.embeddings, answer_of(["a"]))


async def test_untrusted_certificate_counts_as_redis_down(
    make_cache: MakeCache, tls_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache(redis_url=tls_server.url)
    assert same((await cache.cache.embed(["a"])).embeddings, answer_of(["a"]))
    await until(lambda: "does not answer" in caplog.text)
    assert cache.value("redis_up") == 0
