"""One worker's life: opens the application, applies changed settings, and closes it.

BentoML imports the service's module in its supervisor too, which answers no requests. The heavy imports are inside
functions: Starlette, gRPC and numpy stay out of that process, and out of the time before the first worker starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.draining import Draining
from gateway.settings import GatewaySettings
from torchless.telemetry.logs import set_level

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from gateway.reload.reloader import Reloader
    from gateway.services import Services


class WorkerApp:
    """The ASGI application of one worker; it answers once it is opened.

    `draining` says whether the worker is shutting down.

    Args:
        settings: The gateway's settings.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._app: Starlette | None = None
        self._reloader: Reloader | None = None
        self._reloading: asyncio.Task[None] | None = None
        self.draining = Draining()

    async def open(self) -> None:
        """Makes the application inside the running event loop.

        If there is a settings file, its changes are applied from then on: when they are noticed, and on SIGHUP.
        """
        from gateway.app import compose
        from gateway.services import Services

        services = Services.open(self._settings, self.draining)
        self._app = compose(services)
        self._reload(self._app, services)

    def connect(self, **given: Any) -> asyncio.Protocol:
        """A connection to this worker; `uvicorn.Config` takes this method for `http`."""
        from gateway.http.connection import Connection

        settings: GatewaySettings = self._settings if self._app is None else self._app.state.services.settings
        return Connection(settings.http, **given)

    async def close(self) -> None:
        """Closes what `open` made."""
        from gateway.app import close

        if self._reloading is not None and self._reloader is not None:
            self._reloading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reloading
            await self._reloader.close()
        if self._app is not None:
            await close(self._app)

    def _reload(self, app: Starlette, services: Services) -> None:
        from gateway.reload.reloader import Reloader

        def swap(changed: Services) -> None:
            if changed.settings.log.level != app.state.services.settings.log.level:
                set_level(changed.settings.log.level)
            app.state.services = changed

        path = GatewaySettings.file()
        if path is None:
            return
        self._reloader = Reloader(path, services, swap, services.metrics)
        self._reloading = asyncio.create_task(self._reloader.run())
        # Only the main thread receives signals; BentoML serves in it.
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reloader.request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        app: ASGIApp | None = self._app
        if app is None:
            raise RuntimeError("the application was called before it was opened")
        await app(scope, receive, send)
