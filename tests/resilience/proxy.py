"""A TCP proxy between a client and a service, that a test tells to make the wire worse."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from types import TracebackType
from typing import Self

_CHUNK = 64 * 1024
_END = b""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: the kernel sends RST


class Proxy:
    """Passes bytes both ways. What is wrong with the wire may be changed at any time.

    Loss on a TCP connection shows as time, since lost segments are sent again: `loss` is the share of chunks that wait
    for `resend_s` more, as they would for a retransmission.

    Args:
        port: Of the service, on loopback.
        seed: Of what happens by chance.
    """

    def __init__(self, port: int, *, seed: int = 1) -> None:
        self._upstream = port
        self._chance = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self.latency_s = 0.0
        """Time that each chunk takes on its way, in seconds, each direction."""
        self.loss = 0.0
        """Share of chunks that are lost and sent again, 0 to 1."""
        self.resend_s = 0.2
        """Time after which what was lost is sent again, in seconds: TCP's shortest, RFC 6298 as Linux has it."""
        self.black_hole = False
        """Whether everything is swallowed, with connections left open."""
        self.resets = 0
        """Connections that were reset so far."""
        self.port = 0

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._pipes:
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        for writer in self._open:
            writer.close()

    def reset_all(self) -> None:
        """Resets every connection (RST), whatever is on its way."""
        for writer in [*self._open]:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
            self.resets += 1

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        for one, other in ((reader, far_writer), (far_reader, writer)):
            self._open.add(other)
            task = asyncio.create_task(self._pipe(one, other))
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Chunks go out in order, each at its own time; reading goes on meanwhile."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._read(reader, chunks))
                both.create_task(self._deliver(chunks, writer))
        except* OSError:
            pass  # reset by either side, or by the test: the other side is closed as well
        finally:
            self._open.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, chunks: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        while chunk := await reader.read(_CHUNK):
            if not self.black_hole:
                await chunks.put((loop.time() + self._delay_s(), chunk))
        await chunks.put((0.0, _END))

    @staticmethod
    async def _deliver(chunks: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await chunks.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if chunk == _END:
                return
            writer.write(chunk)
            await writer.drain()

    def _delay_s(self) -> float:
        return self.latency_s + (self.resend_s if self._chance.random() < self.loss else 0.0)
