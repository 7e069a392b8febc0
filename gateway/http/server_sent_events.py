"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.http.draining import Draining
from gateway.http.error_family import ErrorFamily
from torchless.clients.deadline import Deadline
from torchless.contracts.errors import ErrorKind, TorchlessError

_HEADERS = {
    "cache-control": "no-store",
    # Proxies would keep events until a buffer is full.
    "x-accel-buffering": "no",
}


async def event_stream(
    name: str, updates: AsyncGenerator[Any, None], family: ErrorFamily, draining: Draining, *, deadline: Deadline
) -> Response:
    """Sends each update as an event, until the updates end, the client disconnects or the gateway drains.

    An error after the first update is the last event, named `error`, with the family's error body.

    Args:
        name: Name of the events.
        updates: Values that orjson can write.
        family: How errors are answered.
        draining: Whether the gateway drains.
        deadline: Until when the first update has to arrive.

    Raises:
        TorchlessError: DEADLINE, and any error before the first update, which can still be answered with a status.
    """
    try:
        async with asyncio.timeout(deadline.timeout_s):
            first = await anext(updates)
    except TimeoutError as error:
        raise TorchlessError(ErrorKind.DEADLINE, "nothing arrived within the deadline") from error

    async def body() -> AsyncIterator[bytes]:
        async with contextlib.aclosing(updates):
            yield _event(name, first)
            try:
                async for update in _until(updates, draining):
                    yield _event(name, update)
            except TorchlessError as error:
                yield _event("error", family.body(error, family.status(error)))

    return _EventStream(body(), updates)


class _EventStream(StreamingResponse):
    """The events; HEAD gets the headers only, because events may have no end."""

    def __init__(self, body: AsyncIterator[bytes], updates: AsyncGenerator[Any, None]) -> None:
        super().__init__(body, headers=_HEADERS, media_type="text/event-stream")
        self._updates = updates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        if scope["method"] != "HEAD":
            await super().__call__(scope, receive, send)
            return
        await self._updates.aclose()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b""})


async def _until(updates: AsyncIterator[Any], draining: Draining) -> AsyncIterator[Any]:
    """`updates`, until draining begins."""
    ending = asyncio.ensure_future(draining.begins())
    following: asyncio.Future[Any] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(updates, None))
            await asyncio.wait({following, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done() or (update := following.result()) is None:
                return
            yield update
    finally:
        ending.cancel()
        if following is not None and not following.done():
            following.cancel()
            # A generator cannot be closed while it runs.
            await asyncio.wait({following})


def _event(name: str, content: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(content))
