"""What every request gets, whichever route answers it."""

from __future__ import annotations

import re
import time
from collections.abc import Container
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.draining import Draining
from gateway.http.metrics import GatewayMetrics
from gateway.http.request_log import log_request
from torchless.clients.call import REQUEST_ID_KEY

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_READING = frozenset({"GET", "HEAD"})
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class RequestMiddleware:
    """Gives each HTTP request an id, counts, times and logs it, and ends its connection when the worker drains.

    The id is kept in `scope["state"]["request_id"]` and answered as `x-request-id`.

    Args:
        app: The application behind it.
        metrics: Where requests are counted.
        draining: Whether the worker drains.
        routine: Paths of routes for health, metrics and documentation, whose GET requests are only logged at DEBUG.
    """

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, draining: Draining, routine: Container[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._draining = draining
        self._routine = routine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get(REQUEST_ID_KEY, "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid4().hex
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        status = 500
        started = time.perf_counter()
        begun_s: float | None = None

        async def send_response(message: Message) -> None:
            nonlocal status, begun_s
            if message["type"] == "http.response.start":
                status, begun_s = message["status"], time.perf_counter() - started
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_KEY] = request_id
                if self._draining.begun:
                    headers["connection"] = "close"
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_response)
        except Exception as error:
            scope["state"]["error"] = error
            raise
        finally:
            total_s = time.perf_counter() - started
            self._metrics.in_flight.dec()
            # Without a route of ours, the route is that of BentoML's mount, whose path is empty.
            route = getattr(scope.get("route"), "path", "") or "unmatched"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(method, route).observe(total_s)
            log_request(
                scope,
                method=method,
                route=route,
                status=status,
                begun_s=total_s if begun_s is None else begun_s,
                total_s=total_s,
                is_routine=method in _READING and route in self._routine,
            )
