"""Notices that the worker shuts down, so that responses can close their connections.

uvicorn closes idle connections within a tenth of a second of SIGTERM. After a response in that time without
`connection: close`, a client would send its next request into a closing connection.
"""

from __future__ import annotations

import asyncio
import signal
from types import FrameType
from typing import Any


class Draining:
    """Whether the worker shuts down; `begun` is true from the signal on."""

    def __init__(self) -> None:
        self.begun = False
        self._event = asyncio.Event()

    def watch(self, number: signal.Signals) -> None:
        """Begins with the signal `number`, before its present handler runs. Only for the main thread's event loop."""
        loop = asyncio.get_running_loop()
        handler: Any = signal.getsignal(number)

        def begin(received: int, frame: FrameType | None) -> None:
            self.begun = True
            loop.call_soon_threadsafe(self._event.set)
            if callable(handler):
                handler(received, frame)

        signal.signal(number, begin)

    async def begins(self) -> None:
        """Returns once it has begun; streams without an end finish then."""
        await self._event.wait()
