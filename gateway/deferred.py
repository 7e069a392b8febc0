"""The application as the service mounts it: loaded in the worker that serves it, and nowhere else.

BentoML imports the service's module in its supervisor too, which answers no requests. FastAPI, gRPC and numpy stay out
of that process, and out of the time before the first worker starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.draining import Draining
from gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from fastapi import FastAPI


class DeferredApplication:
    """An ASGI application that is there once it is opened; `draining` says when its answers end connections.

    Args:
        settings: The gateway's settings.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._app: FastAPI | None = None
        self.draining = Draining()

    async def open(self) -> None:
        """Makes the application inside the running event loop."""
        from gateway.app import compose
        from gateway.services import Services

        self._app = compose(Services.open(self._settings, self.draining))

    async def close(self) -> None:
        """Closes what `open` made."""
        from gateway.app import close

        if self._app is not None:
            await close(self._app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        app: ASGIApp | None = self._app
        if app is None:
            raise RuntimeError("the application is called before it is opened")
        await app(scope, receive, self.draining.closing(send))
