"""Puts the gateway together."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.apis.cohere import routes as cohere
from gateway.apis.families import family_of
from gateway.apis.gpu import routes as gpu
from gateway.apis.openai import routes as openai
from gateway.apis.operation import docs, health, metrics
from gateway.apis.rerank import routes as rerank
from gateway.apis.tei import routes as tei
from gateway.apis.vllm import routes as vllm
from gateway.http.exceptions import GatewayDefectError, MethodNotAllowedError, UnknownRouteError
from gateway.http.metrics import InstrumentsMiddleware
from gateway.http.openapi import openapi_document
from gateway.http.request_headers import RequestIdMiddleware
from gateway.services import Services
from torchless import __version__

_DESCRIPTION = (
    "Embeddings and reranking over the HTTP APIs of OpenAI, text-embeddings-inference, Cohere, Jina, vLLM and infinity;"
    " and the GPUs behind them."
)


def compose(services: Services) -> FastAPI:
    """The HTTP application over `services`."""
    app = FastAPI(
        title="Torchless gateway",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        # The redirection would lead wherever the Host header says, and POST clients do not follow it.
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.instruments = services.instruments
    for family in (openai, tei, cohere, rerank, vllm, gpu, health, metrics, docs):
        app.include_router(family.router)
    app.add_middleware(InstrumentsMiddleware, instruments=app.state.instruments)
    app.add_middleware(RequestIdMiddleware)
    app.add_exception_handler(HTTPException, _unanswered)
    app.add_exception_handler(Exception, _failed)

    def document() -> dict[str, Any]:
        app.openapi_schema = app.openapi_schema or openapi_document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    return app


async def close(app: FastAPI) -> None:
    """Ends what `compose` was given and made."""
    app.state.instruments.close()
    await app.state.services.close()


async def _unanswered(request: Request, error: Exception) -> Response:
    """No route matched, or none for the method."""
    headers = dict(getattr(error, "headers", None) or {})
    wrong_method = getattr(error, "status_code", 404) == 405
    return family_of(request.url.path).answer(MethodNotAllowedError() if wrong_method else UnknownRouteError(), headers)


async def _failed(request: Request, error: Exception) -> Response:
    return family_of(request.url.path).answer(GatewayDefectError())
