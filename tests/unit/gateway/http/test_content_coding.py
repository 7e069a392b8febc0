"""Compressed request bodies: decoded in small pieces, and refused before a bomb fills the memory."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from gateway.http.bodies import BodyLimit
from gateway.http.content_coding import PIECE_BYTES, decoded
from gateway.http.exceptions import HTTPError, UndecodableBodyError, UnreadBodyError
from torchless.clients.deadline import Deadline
from torchless.contracts.errors import ErrorKind

MIB = 2**20
TEXT = b'{"input": "How do swifts sleep?"}' * 100


def request(body: Iterable[bytes], *codings: str) -> Request:
    """A request whose body arrives in these chunks."""
    chunks = iter([*body])

    async def receive() -> dict[str, Any]:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    headers = [(b"content-encoding", coding.encode()) for coding in codings]
    return Request({"type": "http", "headers": headers}, receive)


async def read(given: Request, mib: float = 1) -> bytes:
    with BodyLimit(mib, 4 * mib, 60).body(decoded(given), "embedding", deadline=Deadline.NEVER) as body:
        return await body.read_all()


def in_chunks(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("coding", "compressed"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("GZip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("identity, gzip", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:50]) + gzip.compress(TEXT[50:])),
        ("deflate", zlib.compress(TEXT)),
        ("identity", TEXT),
        ("", TEXT),
    ],
)
async def test_bodies_are_decoded(coding: str, compressed: bytes, size: int) -> None:
    assert await read(request(in_chunks(compressed, size), coding)) == TEXT


@given(st.binary(max_size=4 * PIECE_BYTES // 3), st.integers(1, 5000), st.integers(1, 9))
async def test_any_content_survives_in_any_chunks(content: bytes, size: int, level: int) -> None:
    assert await read(request(in_chunks(gzip.compress(content, level), size), "gzip")) == content


@pytest.mark.parametrize("codings", [("br",), ("zstd",), ("gzip, gzip",), ("gzip", "deflate"), ("gzip;q=1",)])
def test_other_codings_are_refused_with_the_supported_ones(codings: tuple[str, ...]) -> None:
    with pytest.raises(HTTPError, match="content-encoding: must be gzip or deflate") as refused:
        decoded(request([], *codings))
    assert (refused.value.status, refused.value.headers) == (415, {"accept-encoding": "gzip, deflate"})


@pytest.mark.parametrize(
    "body", [b"", TEXT, gzip.compress(TEXT)[:-1], gzip.compress(TEXT) + b"more", zlib.compress(TEXT), b"\0" * 50]
)
async def test_bodies_that_do_not_match_their_coding_are_malformed(body: bytes) -> None:
    with pytest.raises(UndecodableBodyError, match="content-encoding: does not match the body"):
        await read(request([body], "gzip"))


def bomb(mib: int) -> bytes:
    """Zeros: a thousandth of their size."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(bytes(MIB)) for _ in range(mib)), packer.flush()])


async def test_a_bomb_is_refused_at_the_limit_of_the_decoded_body() -> None:
    body = bomb(256)
    assert len(body) < MIB
    tracemalloc.start()
    try:
        with pytest.raises(UnreadBodyError) as refused:
            await read(request([body], "gzip"), mib=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.kind is ErrorKind.INPUT_TOO_LARGE
    assert peak < 5 * MIB


async def test_a_body_at_the_limit_is_accepted() -> None:
    assert await read(request([bomb(2)], "gzip"), mib=2) == bytes(2 * MIB)


async def test_a_body_of_empty_blocks_is_refused_before_its_end() -> None:
    start, empty_block = gzip.compress(b"")[:10], b"\0\0\0\xff\xff"
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        body = empty_block * 10_000 if sent else start
        sent += len(body)
        return {"type": "http.request", "body": body, "more_body": True}

    headers = [(b"content-encoding", b"gzip")]
    with pytest.raises(UndecodableBodyError):
        await read(Request({"type": "http", "headers": headers}, receive))
    assert sent < 2 * MIB
