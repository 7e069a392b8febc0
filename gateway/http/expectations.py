"""Requests whose client waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1)."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ExpectationMiddleware:
    """Closes the connection after an answer that came instead of `100 Continue`.

    uvicorn sends `100 Continue` when the body is first read. A client that gets an answer instead may leave the body
    out, and its next request on the connection would be read as that body.

    Args:
        app: The application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        if scope["type"] != "http" or "expect" not in Headers(scope=scope):
            await self._app(scope, receive, send)
            return
        waits = True

        async def receive_body() -> Message:
            nonlocal waits
            waits = False
            return await receive()

        async def send_answer(message: Message) -> None:
            if waits and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive_body, send_answer)
