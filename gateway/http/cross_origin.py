"""Cross-origin resource sharing (https://fetch.spec.whatwg.org/#http-cors-protocol), by settings that can change."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.settings import CORSSettings

_METHODS = ("GET", "HEAD", "POST", "DELETE")
_PREFLIGHT_AGE_S = 600


class CrossOriginMiddleware:
    """Lets web pages of the origins in `cors.allow_origins` use the gateway; without any, adds nothing to responses.

    Pages may send and read all headers. They need no credentials in the sense of the protocol, such as cookies: keys
    are sent in ordinary headers.

    Args:
        app: The application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._settings = CORSSettings()
        self._for_pages: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        if scope["type"] == "http":
            settings: CORSSettings = scope["app"].state.services.settings.cors
            if settings != self._settings:
                self._settings, self._for_pages = settings, self._with(settings)
            await self._for_pages(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _with(self, settings: CORSSettings) -> ASGIApp:
        if not settings.allow_origins:
            return self._app
        return CORSMiddleware(
            self._app,
            allow_origins=settings.allow_origins,
            allow_methods=_METHODS,
            allow_headers=("*",),
            expose_headers=("*",),
            allow_private_network=True,
            max_age=_PREFLIGHT_AGE_S,
        )
