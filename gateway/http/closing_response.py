"""An answer given while the caller still sends."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_LINGER_S = 0.25


class LastAnswer(Response):
    """Answers, and closes the connection a moment later.

    Closing is what ends the sending; kept alive, the connection would have to read the rest. But to close a socket with
    bytes unread resets the connection, which throws away the answer on its way (RFC 9112, section 9.6): so the answer
    goes out first, nothing is read meanwhile, and the connection closes after a pause.

    Args:
        answer: What to say.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.body, answer.status_code, {**answer.headers, "connection": "close"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await asyncio.sleep(_LINGER_S)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
