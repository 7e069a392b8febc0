"""Keeps web pages from using a gateway that requires no API key.

A page that someone visits can send requests to every address that its visitor can reach, also to 127.0.0.1. Browsers
keep the page from reading the answers of another origin, and from sending some requests. The rest is refused here:

- **DNS rebinding.** A page can point the name that it came from to 127.0.0.1, and is then of the gateway's origin.
  But the name stays in the Host header. Over loopback only names that no DNS server can point to this machine are
  accepted, as Jupyter Server and Ollama do it.
- **Requests of other origins** that browsers send unasked, such as forms. They are recognized by Sec-Fetch-Site, in
  older browsers by Origin, as in Go's `net/http.CrossOriginProtection`.

A page has no API key, so a gateway that requires one needs neither.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.identity import close_websocket
from gateway.http.loopback import is_address, is_over_loopback
from gateway.settings import GatewaySettings
from torchless.contracts.errors import ErrorKind, TorchlessError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_NAMES = frozenset({"localhost", socket.gethostname().lower()})
_LOCAL_DOMAINS = (".localhost", ".internal")
"""Domains that public DNS cannot have: RFC 6761, and ICANN's reservation of 2024. Docker's names end in `.internal`."""

_LONGEST_HOST = 300
"""A DNS name has at most 253 characters, and a port 6."""


class WebPageMiddleware:
    """Refuses requests for names that are not this machine's, and requests that a web page must not send.

    Args:
        app: The application behind it.
        answer: Makes the response for an error of a request to a path.
    """

    def __init__(self, app: ASGIApp, answer: Callable[[str, TorchlessError], Response]) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        if scope["type"] in {"http", "websocket"}:
            try:
                _check(scope, scope["app"].state.services.settings)
            except TorchlessError as error:
                if scope["type"] == "websocket":
                    await close_websocket(receive, send, error)
                else:
                    scope.setdefault("state", {})["error"] = error  # for the log
                    await self._answer(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _check(scope: Scope, settings: GatewaySettings) -> None:
    headers = Headers(scope=scope)
    host = headers.get("host", "").lower()
    requires_key = bool(settings.auth.api_keys)
    if settings.allowed_hosts or (not requires_key and is_over_loopback(scope)):
        _check_host(host, settings.allowed_hosts)
    if not requires_key and scope.get("method") not in _SAFE_METHODS and _is_of_another_origin(headers, host, settings):
        message = "web pages of other origins are refused; to allow one, add its origin to cors.allow_origins"
        raise TorchlessError(ErrorKind.FORBIDDEN, message)


def _check_host(host: str, allowed: tuple[str, ...]) -> None:
    name = _host_name(host) if len(host) <= _LONGEST_HOST else None
    if (name is None or not _is_local(name)) and name not in allowed and "*" not in allowed:
        message = "the gateway does not accept this Host header; add the host name to allowed_hosts to use it"
        raise TorchlessError(ErrorKind.FORBIDDEN, message)


@lru_cache(maxsize=256)
def _host_name(host: str) -> str | None:
    """The name or address in a Host header; None: the header is not valid."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _is_local(name: str) -> bool:
    """Whether no DNS server can point the name to this machine. A browser never sends an empty one."""
    return not name or name in _LOCAL_NAMES or name.endswith(_LOCAL_DOMAINS) or is_address(name)


def _is_of_another_origin(headers: Headers, host: str, settings: GatewaySettings) -> bool:
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and not {origin, "*"}.isdisjoint(settings.cors.allow_origins):
        return False
    if site is not None:
        return site not in {"same-origin", "none"}
    return origin is not None and origin.lower().partition("://")[2] != host
