"""The methods that a path supports (RFC 9110, section 10.2.1)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Match


def allowed_methods(request: Request) -> str:
    """The methods of all routes that have the request's path, as `Allow` lists them; empty: no route has it."""
    routes = [each for each in request.app.router.routes if each.matches(request.scope)[0] is not Match.NONE]
    methods = {method for each in routes for method in each.methods or ()}
    return ", ".join(sorted({*methods, "OPTIONS"})) if routes else ""
