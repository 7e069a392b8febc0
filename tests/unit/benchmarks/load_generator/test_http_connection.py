"""The load generator's HTTP connection, against a server that answers in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from benchmarks.load_generator.http_connection import HTTPConnection, request_bytes


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    while b"/hang-up" not in head:
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        for part in (
            b"HTTP/1.1 200 OK\r\nTransfer-Enc",
            b"oding: chunked\r\n\r\n",
            b"%x\r\n%s\r\n" % (length, body),
            b"0\r\n\r\n",
        ):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()


@pytest.fixture
async def connection() -> AsyncIterator[HTTPConnection]:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    found = await HTTPConnection.open("127.0.0.1", server.sockets[0].getsockname()[1])
    yield found
    found.close()
    server.close()
    await server.wait_closed()


async def test_a_connection_makes_many_exchanges(connection: HTTPConnection) -> None:
    for body in (b"first", b"a second one"):
        assert await connection.exchange(request_bytes("POST", "/echo", body)) == (200, body)
    with pytest.raises(ConnectionError, match="closed"):
        await connection.exchange(request_bytes("GET", "/hang-up"))
