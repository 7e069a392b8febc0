"""Reads request bodies, and stops reading one that is too large."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from gateway.faults import BodyTooLargeError


class BodyLimit:
    """Reads a body of at most so many bytes.

    Args:
        mib: The limit, in MiB.
    """

    def __init__(self, mib: float) -> None:
        self._mib = mib
        self._bytes = int(mib * 1024 * 1024)

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        A Content-Length past the limit is refused before a byte is read, and one that lies, or is absent as in chunked
        bodies, as soon as the bytes read pass it.

        Raises:
            BodyTooLargeError: Past the limit.
            ClientDisconnect: The caller hung up before the end.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._bytes:
                raise BodyTooLargeError(self._mib)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self._bytes:
                raise BodyTooLargeError(self._mib)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
