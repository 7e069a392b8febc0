"""A cheap keep-alive HTTP/1.1 connection: the load generator shares the cores with what it measures."""

from __future__ import annotations

import asyncio
from typing import Self, cast

import httptools


class HTTPConnection(asyncio.Protocol):
    """One connection, one request at a time. Sends prepared requests; httptools parses the responses.

    connection = await HTTPConnection.open("127.0.0.1", 3000)
    status, body = await connection.exchange(request_bytes("POST", "/embed", b"{}"))
    """

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """Connects."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._start_message()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the response is not HTTP: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._fail(error or ConnectionError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        answer = self._parser.get_status_code(), b"".join(self._parts)
        self._start_message()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    async def exchange(self, message: bytes) -> tuple[int, bytes]:
        """Sends a request; returns the status and body of the response.

        Raises:
            ConnectionError: The connection was lost, or the response is not HTTP.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._answer

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def _start_message(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def request_bytes(method: str, path: str, body: bytes = b"") -> bytes:
    """Prepares a request with a JSON body."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
