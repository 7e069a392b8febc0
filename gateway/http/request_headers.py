"""What an HTTP request says beside its body: its id, its trace, and how long its caller waits.

Headers read: `x-request-id` (made when absent or unusable, and answered), `traceparent` (W3C trace context) and
`x-request-timeout-s`, the seconds from the request's arrival that the caller waits; the services get what is left.
"""

from __future__ import annotations

import math
import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.capabilities.request import RequestContext
from gateway.http.exceptions import malformed
from gateway.settings import LimitSettings
from torchless.clients.call import REQUEST_ID_KEY, TRACEPARENT_KEY
from torchless.clients.deadline import Deadline

TIMEOUT_HEADER = "x-request-timeout-s"
MIN_TIMEOUT_S = 0.001
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class RequestIdMiddleware:
    """Gives every HTTP request an id, kept in `scope["state"]["request_id"]` and answered as `x-request-id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get(REQUEST_ID_KEY, "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid4().hex
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_KEY] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def request_context(scope: Scope, limits: LimitSettings, deadline_s: float) -> RequestContext:
    """The context of the request in `scope`, arriving now.

    Args:
        scope: The request.
        limits: The longest deadline.
        deadline_s: Deadline where the caller names none, in seconds.

    Raises:
        MalformedRequestError: `x-request-timeout-s` is not a number of seconds from `MIN_TIMEOUT_S`.
    """
    headers = Headers(scope=scope)
    traceparent = headers.get(TRACEPARENT_KEY, "")
    return RequestContext(
        request_id=scope["state"]["request_id"],
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
        deadline=Deadline.after(_seconds(headers.get(TIMEOUT_HEADER), limits, deadline_s)),
    )


def _seconds(value: str | None, limits: LimitSettings, deadline_s: float) -> float:
    if value is None:
        return min(deadline_s, limits.max_deadline_s)
    return min(read_seconds(TIMEOUT_HEADER, value, least=MIN_TIMEOUT_S), limits.max_deadline_s)


def read_seconds(name: str, given: str, *, least: float = -math.inf, finite: bool = False) -> float:
    """The seconds that `given` says.

    Args:
        name: What the caller calls it.
        given: The number as text, in ASCII and without underscores.
        least: The smallest that is taken.
        finite: Whether infinity is refused.

    Raises:
        MalformedRequestError: It is no number, or not one that is taken.
    """
    seconds = _number(given)
    if not seconds >= least or (finite and math.isinf(seconds)):
        wanted = "is a number of seconds" + ("" if math.isinf(least) else f" from {least}")
        raise malformed(name, f"{wanted}, such as 2.5")
    return seconds


def _number(given: str) -> float:
    """NaN where it is none. Python reads 1_0 as 10, and digits of every script; a slip must not be taken for those."""
    if "_" in given or not given.isascii():
        return math.nan
    try:
        return float(given)
    except ValueError:
        return math.nan
