"""How routes are described in OpenAPI; accurate, because tests are made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.errors import ErrorFamily
from gateway.request_context import MIN_TIMEOUT_S, TIMEOUT_HEADER
from gateway.schemas import cohere, openai, tei

_BODIES: tuple[type[BaseModel], ...] = (
    openai.EmbeddingsRequest,
    tei.EmbedRequest,
    tei.EmbedAllRequest,
    tei.SimilarityRequest,
    tei.TokenizeRequest,
    tei.DecodeRequest,
    cohere.EmbedV1Request,
    cohere.EmbedV2Request,
)
"""What routes read themselves, so that FastAPI does not know of it."""
_REF = "#/components/schemas/{model}"
_MEANINGS = {
    400: "The request is wrong; the message says what to change",
    404: "No such model",
    413: "Past a limit of the gateway or the model, or a value that the model does not support",
    422: "The body cannot be read, or the vocabulary does not hold it",
    424: "The service failed",
    429: "Busy; try again after Retry-After",
    500: "The gateway or the service failed",
    503: "The service does not answer or is not ready",
    504: "The deadline passed first",
}
_HEADERS = [
    {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "required": False,
        "description": "Seconds that the caller waits.",
        "schema": {"type": "number", "minimum": MIN_TIMEOUT_S},
    },
    {
        "name": "x-request-id",
        "in": "header",
        "required": False,
        "description": "Id of the request; made when absent, and answered.",
        "schema": {"type": "string"},
    },
]


def described_post(
    path: str,
    handler: Callable[..., Any],
    *,
    family: ErrorFamily,
    body: type[BaseModel],
    answer: Any,
    examples: Mapping[str, Any],
) -> dict[str, Any]:
    """Arguments of `add_api_route` for a route that takes `body`."""
    content = {
        "schema": {"$ref": _REF.format(model=schema_name(body))},
        "examples": {name: {"summary": name, "value": value} for name, value in examples.items()},
    }
    described = _described(path, handler, family=family, answer=answer, statuses=family.statuses)
    extra = {
        "parameters": _HEADERS,
        "requestBody": {"required": True, "content": {"application/json": content}},
    }
    return {**described, "methods": ["POST"], "openapi_extra": extra}


def described_get(
    path: str, handler: Callable[..., Any], *, family: ErrorFamily, answer: Any, statuses: tuple[int, ...]
) -> dict[str, Any]:
    """Arguments of `add_api_route` for a route without a body."""
    described = _described(path, handler, family=family, answer=answer, statuses=statuses)
    names = [part.split(":")[0] for part in path.replace("}", "{").split("{")[1::2]]
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    return {**described, "methods": ["GET"], "openapi_extra": {"parameters": parameters}}


def _described(
    path: str, handler: Callable[..., Any], *, family: ErrorFamily, answer: Any, statuses: tuple[int, ...]
) -> dict[str, Any]:
    summary, _, description = (handler.__doc__ or "").partition("\n\n")
    responses: dict[int, dict[str, Any]] = {200: {"model": answer, "description": "The answer"}}
    responses |= {status: {"model": family.schema, "description": _MEANINGS[status]} for status in statuses}
    name = path.strip("/").replace("/", "_").replace("{", "").replace(":path}", "").replace("}", "") or "root"
    return {
        "response_model": None,
        "responses": responses,
        "summary": summary.rstrip("."),
        "description": " ".join(description.split()),
        "operation_id": f"{name}_{handler.__name__}",
        "tags": [family.name],
    }


def schema_name(model: type[BaseModel]) -> str:
    """Name of a request model among the components: its module's last part and its own, for two families share some."""
    return f"{model.__module__.rpartition('.')[2]}_{model.__name__}"


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The document of `app`, with the request bodies that its routes read themselves."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    components = document["components"]["schemas"]
    for body in _BODIES:
        _, definitions = models_json_schema([(body, "validation")], ref_template=_REF)
        parts = definitions["$defs"]
        components[schema_name(body)] = parts.pop(body.__name__)
        components.update(parts)
    return document
