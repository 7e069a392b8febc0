"""Tells callers to leave once the worker has been asked to.

uvicorn closes idle connections within a tenth of a second of SIGTERM. An answer given in that time that said nothing
would have its caller send the next request into a closing connection.
"""

from __future__ import annotations

import asyncio
import signal
from types import FrameType
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send


class Draining:
    """Whether the worker is on its way out; `begun` is true from the signal on."""

    def __init__(self) -> None:
        self.begun = False
        self._event = asyncio.Event()

    def watch(self, number: signal.Signals) -> None:
        """Begins with the signal `number`, before whoever handles it now. In the main thread's event loop only."""
        loop = asyncio.get_running_loop()
        handler: Any = signal.getsignal(number)

        def begin(received: int, frame: FrameType | None) -> None:
            self.begun = True
            loop.call_soon_threadsafe(self._event.set)
            if callable(handler):
                handler(received, frame)

        signal.signal(number, begin)

    async def begins(self) -> None:
        """Returns once it has begun: answers without an end of their own end then."""
        await self._event.wait()

    def closing(self, send: Send) -> Send:
        """`send`, with `connection: close` on answers that start after the beginning."""

        async def send_and_close(message: Message) -> None:
            if self.begun and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        return send_and_close
