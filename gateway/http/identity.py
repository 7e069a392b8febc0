"""Who calls: the principal that authentication produces, and the scopes that routes require.

An `Authenticator` turns the credentials of an HTTP or WebSocket request into a `Principal`; nothing else in the gateway
reads credentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.loopback import is_over_loopback
from gateway.settings import ALL_SCOPES, AccessScope
from torchless.contracts.errors import ErrorKind, TorchlessError

_POLICY_VIOLATION = 1008
"""WebSocket close code (RFC 6455, section 7.4.1)."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller."""

    name: str
    """Its name, for people and logs."""
    tenant: str
    """Whose data it works with; empty: no tenant in particular."""
    scopes: frozenset[AccessScope]
    """What it may do."""


ANONYMOUS = Principal("anonymous", "", ALL_SCOPES)
"""Every caller of a gateway that requires no credentials."""


class Authenticator(Protocol):
    """Turns credentials into a principal."""

    async def authenticate(self, scope: Scope) -> Principal:
        """The caller of the request in `scope`.

        Raises:
            TorchlessError: UNAUTHENTICATED, when its credentials are missing or not valid.
        """


class NoAuthentication:
    """Requires no credentials."""

    async def authenticate(self, scope: Scope) -> Principal:
        """The anonymous principal."""
        return ANONYMOUS


class IdentityMiddleware:
    """Authenticates every HTTP and WebSocket request, before its route is known.

    The principal is kept in `scope["state"]["principal"]`. An HTTP request without one goes on, because some routes are
    open to everyone, and each API answers errors in its own body: `require_scope` refuses it. A WebSocket is closed
    before it is accepted, which servers answer with 403.

    The authenticator is that of `app.state.services`, which a reload replaces.

    Args:
        app: The application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (https://asgi.readthedocs.io)."""
        if scope["type"] in {"http", "websocket"}:
            state = scope["state"] = dict(scope.get("state", {}))
            authenticator: Authenticator = scope["app"].state.services.authenticator
            try:
                state["principal"] = await authenticator.authenticate(scope)
            except TorchlessError as error:
                if scope["type"] == "websocket":
                    await close_websocket(receive, send, error)
                    return
                state["authentication_error"] = error
        await self._app(scope, receive, send)


async def close_websocket(receive: Receive, send: Send, error: TorchlessError) -> None:
    """Closes a WebSocket because of `error`, before it is accepted."""
    await receive()
    await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": error.message})


def may_see_addresses(scope: Scope) -> bool:
    """Whether the caller may learn where services are: with a valid key, or without keys from this machine."""
    principal: Principal | None = scope["state"].get("principal")
    return principal is not None and (principal is not ANONYMOUS or is_over_loopback(scope))


def require_scope(scope: Scope, required: AccessScope | None) -> Principal:
    """The principal of the request in `scope`; the anonymous one, when it has none and `required` is None.

    Raises:
        TorchlessError: As its authentication; FORBIDDEN, when the principal lacks the required scope.
    """
    state = scope["state"]
    principal: Principal | None = state.get("principal")
    if required is None:
        return principal or ANONYMOUS
    if principal is None:
        raise state["authentication_error"]
    if required not in principal.scopes:
        raise TorchlessError(ErrorKind.FORBIDDEN, f"the credentials lack the scope {required} that the route requires")
    return principal
