"""Reads request bodies, and stops reading one that is too large or that there is no room for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from gateway.http.bulkheads import Bulkheads, Compartment
from gateway.http.exceptions import BodyTooLargeError, NoRoomForBodyError

_MIB = 1024 * 1024


class BodyLimit:
    """Room for the bodies of one worker's requests, of which no compartment holds more than it leaves free.

    Args:
        mib: Most of one body, in MiB.
        all_mib: Most of all bodies that are held at one time, in MiB.
    """

    def __init__(self, mib: float, all_mib: float) -> None:
        self._mib = mib
        self._bytes = Bulkheads(int(all_mib * _MIB))

    def reconfigure(self, mib: float, all_mib: float) -> None:
        """Changes the limits; what is held stays counted, and a body that is being read keeps the limit of its own."""
        self._mib = mib
        self._bytes.reconfigure(int(all_mib * _MIB))

    @contextmanager
    def room(self, compartment: Compartment) -> Iterator[BodyReader]:
        """A reader of one body, whose bytes count as held until the end of the block.

        What has arrived counts, not what is announced: a caller that sends nothing takes no room.
        """
        reader = BodyReader(self._bytes, compartment, self._mib)
        try:
            yield reader
        finally:
            self._bytes.give_back(compartment, reader.size)


class BodyReader:
    """Reads one body; made by `BodyLimit.room`. `size` is what it holds, in bytes."""

    def __init__(self, room: Bulkheads, compartment: Compartment, mib: float) -> None:
        self._room = room
        self._compartment = compartment
        self._mib = mib
        self.size = 0

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        A Content-Length past the limit is refused before a byte is read, and one that lies, or is absent as in chunked
        bodies, as soon as the bytes read pass it.

        Raises:
            BodyTooLargeError: Past the limit of one body.
            NoRoomForBodyError: Past what all bodies, or those of the compartment, may hold.
            ClientDisconnect: The caller hung up before the end.
        """
        most = int(self._mib * _MIB)
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > most:
                raise BodyTooLargeError(self._mib)
        chunks: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            if self.size + len(chunk) > most:
                raise BodyTooLargeError(self._mib)
            if not self._room.take(self._compartment, len(chunk), begun=self.size):
                raise NoRoomForBodyError
            self.size += len(chunk)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
