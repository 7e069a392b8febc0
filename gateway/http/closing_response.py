"""A response that is sent while the client still sends its body, and then closes the connection."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

_LINGER_S = 0.25


class ClosingResponse(Response):
    """Sends a response, and closes the connection a moment later.

    Only closing stops the client; on a connection that is kept alive, the rest of the body would have to be read. But
    closing a socket with unread bytes resets the connection, which discards the response on its way (RFC 9112, section
    9.6). So the response goes out first, nothing is read meanwhile, and the connection closes after a pause.

    Args:
        response: The response.
    """

    def __init__(self, response: Response) -> None:
        response.headers["connection"] = "close"
        self._response = response
        self.status_code = response.status_code
        self.raw_headers = response.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""

        async def send_and_linger(message: Message) -> None:
            if message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            await send({**message, "more_body": True})
            await asyncio.sleep(_LINGER_S)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._response(scope, receive, send_and_linger)
