"""Composes the application: the API families' routes, middleware, and errors outside of routes."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from gateway.apis.families import FAMILIES, family_of
from gateway.apis.operation.routes import METRICS, PAGES
from gateway.apis.operation.routes import routes as operation_routes
from gateway.http.cross_origin import CrossOriginMiddleware
from gateway.http.exceptions import GatewayDefectError, method_not_allowed, unknown_route
from gateway.http.expectations import ExpectationMiddleware
from gateway.http.identity import IdentityMiddleware
from gateway.http.methods import allowed_methods
from gateway.http.middleware import RequestMiddleware
from gateway.http.openapi import OpenAPI
from gateway.http.web_pages import WebPageMiddleware
from gateway.services import Services
from torchless import __version__
from torchless.contracts.errors import TorchlessError

_DESCRIPTION = (
    "Embeddings and reranking over the HTTP APIs of OpenAI, text-embeddings-inference, Cohere, Jina, vLLM and infinity;"
    " and the GPUs behind them."
)


def compose(services: Services) -> Starlette:
    """The HTTP application over `services`."""
    app = Starlette(
        routes=[*(route for family in FAMILIES for route in family.routes), *PAGES],
        middleware=[
            Middleware(RequestMiddleware, metrics=services.metrics, draining=services.draining, routine=_routine()),
            Middleware(ExpectationMiddleware),
            Middleware(CrossOriginMiddleware),
            Middleware(WebPageMiddleware, answer=_answer_error),
            Middleware(IdentityMiddleware),
        ],
        exception_handlers={HTTPException: _answer_without_route, Exception: _answer_defect},
    )
    # A redirect would lead to the Host that the client names, and POST clients do not follow redirects.
    app.router.redirect_slashes = False
    operations = [operation for family in FAMILIES for operation in family.operations]
    app.state.services = services
    app.state.openapi = OpenAPI("Torchless gateway", __version__, _DESCRIPTION, [*operations, METRICS])
    return app


def _routine() -> frozenset[str]:
    """Paths of the routes for health, metrics and documentation."""
    return frozenset(route.path for route in (*operation_routes.routes, *PAGES))


async def close(app: Starlette) -> None:
    """Closes the services of an application that `compose` made, also after a reload."""
    services: Services = app.state.services
    services.metrics.close()
    await services.close()


async def _answer_without_route(request: Request, error: Exception) -> Response:
    """No route has this path, or none with this method."""
    path: str = request.scope["path"]
    allowed = allowed_methods(request)
    if not allowed:
        return _answer_error(path, unknown_route(path))
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"allow": allowed})
    return _answer_error(path, method_not_allowed(allowed))


async def _answer_defect(request: Request, error: Exception) -> Response:
    return _answer_error(request.scope["path"], GatewayDefectError())


def _answer_error(path: str, error: TorchlessError) -> Response:
    return family_of(path).answer(error)
