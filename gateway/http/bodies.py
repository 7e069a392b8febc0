"""Reads request bodies within limits: of one body, and of all bodies that a worker holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from gateway.http.bulkheads import SharedCapacity
from gateway.http.exceptions import StalledBodyError, body_memory_full, body_too_large, body_too_late
from torchless.clients.deadline import Deadline

_MIB = 1024 * 1024


class BodyLimit:
    """Memory for the bodies of one worker's requests, shared by bulkheads.

    Args:
        mib: Largest body, in MiB.
        all_mib: Most that all bodies hold at once, in MiB.
        stall_s: Longest time in which nothing of a body arrives, in seconds.
    """

    def __init__(self, mib: float, all_mib: float, stall_s: float) -> None:
        self._mib = mib
        self._stall_s = stall_s
        self._bytes = SharedCapacity(int(all_mib * _MIB))

    def reconfigure(self, mib: float, all_mib: float, stall_s: float) -> None:
        """Changes the limits; what is held stays counted, and a body that is being read keeps its limit."""
        self._mib = mib
        self._stall_s = stall_s
        self._bytes.reconfigure(int(all_mib * _MIB))

    @contextmanager
    def body(
        self, request: Request, bulkhead: str, *, deadline: Deadline, mib: float | None = None
    ) -> Iterator[BoundedBody]:
        """The body of a request; what it holds counts until the end of the block.

        What has arrived counts, not what is announced: a client that sends nothing takes no memory.

        Args:
            request: The request.
            bulkhead: The bulkhead whose memory it takes.
            deadline: The request's deadline.
            mib: Largest body, in MiB; None: the ordinary limit.
        """
        mib = self._mib if mib is None else mib
        body = BoundedBody(request, self._bytes, bulkhead, mib=mib, deadline=deadline, stall_s=self._stall_s)
        try:
            yield body
        finally:
            body.release()


class BoundedBody:
    """One body, read whole or piece by piece; made by `BodyLimit.body`.

    `async for chunk in body` holds one piece at a time: a piece stops counting when the next one is read. A handler
    reads what it needs of the body before it returns its response.

    All reading raises:
        UnreadBodyError: INPUT_TOO_LARGE, past the limit of one body; OVERLOADED, past what the bulkhead, or all of them
            together, may hold; DEADLINE, when the deadline expires first.
        StalledBodyError: Nothing arrived for too long.
        ClientDisconnect: The client disconnected before the end.
    """

    def __init__(
        self,
        request: Request,
        capacity: SharedCapacity,
        bulkhead: str,
        *,
        mib: float,
        deadline: Deadline,
        stall_s: float,
    ) -> None:
        self._request = request
        self._capacity = capacity
        self._bulkhead = bulkhead
        self._mib = mib
        self._deadline = deadline
        self._stall_s = stall_s
        self._received = 0
        self._held = 0
        self._ended = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether it was read to its end."""
        return self._ended.is_set()

    async def read_all(self) -> bytes:
        """The whole body, which counts as held from now on."""
        chunks = []
        while not self.complete:
            chunks.append(await self._next())
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Its pieces, as they arrive; none is empty."""
        while not self.complete:
            self.release()
            if chunk := await self._next():
                yield chunk

    async def next_message(self) -> Message:
        """The next message after the body's end, which can only report that the client disconnected."""
        await self._ended.wait()
        return await self._request.receive()

    def release(self) -> None:
        """Stops counting what was read."""
        self._capacity.give_back(self._bulkhead, self._held)
        self._held = 0

    async def _next(self) -> bytes:
        if not self._received:
            self._check_announced()
        until = self._deadline.earlier_of(Deadline.after(self._stall_s))
        try:
            async with asyncio.timeout(until.timeout_s):
                message = await self._request.receive()
        except TimeoutError as error:
            raise (body_too_late() if until is self._deadline else StalledBodyError(self._stall_s)) from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        self._received += len(chunk)
        if self._received > self._mib * _MIB:
            raise body_too_large(self._mib)
        if not self._capacity.take(self._bulkhead, len(chunk), begun=self._held):
            raise body_memory_full()
        self._held += len(chunk)
        if not message.get("more_body", False):
            self._ended.set()
        return chunk

    def _check_announced(self) -> None:
        """Refuses a body by its Content-Length, before a byte is read; a wrong length is found while reading."""
        for name, value in self._request.scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._mib * _MIB:
                raise body_too_large(self._mib)
