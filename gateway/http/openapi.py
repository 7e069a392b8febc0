"""How routes are described in OpenAPI; accurate, because tests are made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from gateway.apis.cohere import schemas as cohere
from gateway.apis.gpu import schemas as gpu
from gateway.apis.openai import schemas as openai
from gateway.apis.rerank import schemas as rerank
from gateway.apis.tei import schemas as tei
from gateway.apis.vllm import schemas as vllm
from gateway.http.body_variants import Form
from gateway.http.error_family import ErrorFamily
from gateway.http.exceptions import MalformedRequestError
from gateway.http.request_headers import MIN_TIMEOUT_S, TIMEOUT_HEADER
from gateway.settings import GatewaySettings

_BODIES: tuple[type[BaseModel], ...] = (
    openai.EmbeddingsRequest,
    tei.EmbedRequest,
    tei.EmbedAllRequest,
    tei.SimilarityRequest,
    tei.TokenizeRequest,
    tei.DecodeRequest,
    cohere.EmbedV1Request,
    cohere.EmbedV2Request,
    cohere.RerankRequest,
    rerank.RerankRequest,
    tei.RerankRequest,
    vllm.ScoreRequest,
    gpu.AllocationRequest,
    gpu.RenewalRequest,
)
"""What routes read themselves, so that FastAPI does not know of it."""
EVENTS = "text/event-stream"
"""In place of an answer's type: server-sent events, which the route's description tells of."""
_REF = "#/components/schemas/{model}"
_MEANINGS = {
    400: "The request is wrong; the message says what to change",
    401: "The gateway asks for a key, and there is none or a wrong one",
    404: "No such model, or lease",
    409: "The idempotency key stands for another request",
    413: "Past a limit of the gateway, the model or the devices, or a value that the model does not support",
    422: "The body or a header cannot be read, or the vocabulary does not hold the input",
    424: "The service failed",
    429: "Busy; try again after Retry-After",
    500: "The gateway or the service failed",
    503: "The service does not answer or is not ready",
    504: "The deadline passed first",
}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The key, also without the word Bearer."},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The key."},
}
"""How a key is sent, where the gateway asks for one."""
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
    path: str, about: Callable[..., Any], *, family: ErrorFamily, forms: Sequence[Form]
) -> dict[str, Any]:
    """Arguments of `add_api_route` for a route that takes one of `forms`; `about` has its name and docstring."""
    schemas = [{"$ref": _REF.format(model=schema_name(form.body))} for form in forms]
    examples = {name: {"summary": name, "value": value} for form in forms for name, value in form.examples.items()}
    content = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}, "examples": examples}
    families = {each.name: each for each in (family, *(form.family for form in forms))}.values()
    statuses = sorted({status for each in families for status in each.statuses})
    errors = {status: _either(each.schema for each in families if status in each.statuses) for status in statuses}
    described = _described(path, about, family, _either(form.answer for form in forms), errors)
    extra = {
        "parameters": [*_in_path(path), *_HEADERS],
        "requestBody": {"required": True, "content": {"application/json": content}},
    }
    return {**described, "methods": ["POST"], "openapi_extra": extra}


def described_bodiless(
    path: str,
    handler: Callable[..., Any],
    *,
    family: ErrorFamily,
    answer: Any,
    statuses: tuple[int, ...],
    also_answered_with: tuple[int, ...],
    open_to_all: bool,
    query: type[BaseModel] | None,
) -> dict[str, Any]:
    """Arguments of `add_api_route` for a route without a body."""
    # A header can be malformed without a body, too.
    always = {family.status(MalformedRequestError("")), 500} | (set() if open_to_all else {401})
    errors = dict.fromkeys(sorted(always | {*statuses}), family.schema)
    described = _described(path, handler, family, answer, errors | dict.fromkeys(also_answered_with, answer))
    if answer is EVENTS:
        described["responses"][200] = {"description": "Events", "content": {EVENTS: {"schema": {"type": "string"}}}}
        # A class without a type of its own; FastAPI's usual one would be listed beside.
        described["response_class"] = Response
    extra: dict[str, Any] = {"parameters": [*_in_path(path), *_in_query(query), *_HEADERS]}
    if open_to_all:
        extra["security"] = []
    return {**described, "openapi_extra": extra}


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part.split(":")[0] for part in path.replace("}", "{").split("{")[1::2]]
    return [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]


def _in_query(query: type[BaseModel] | None) -> list[dict[str, Any]]:
    properties = {} if query is None else query.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "description": about.pop("description", ""), "schema": about}
        for name, about in properties.items()
    ]


def _described(
    path: str, about: Callable[..., Any], family: ErrorFamily, answer: Any, errors: Mapping[int, Any]
) -> dict[str, Any]:
    summary, _, description = (about.__doc__ or "").partition("\n\n")
    responses: dict[int, dict[str, Any]] = {200: {"model": answer, "description": "The answer"}}
    responses |= {status: {"model": body, "description": _MEANINGS[status]} for status, body in errors.items()}
    name = path.strip("/").replace("/", "_").replace("{", "").replace(":path}", "").replace("}", "") or "root"
    return {
        "response_model": None,
        "responses": responses,
        "summary": summary.rstrip("."),
        "description": " ".join(description.split()),
        "operation_id": f"{name}_{about.__name__}",
        "tags": [family.name],
    }


def _either(types: Iterable[Any]) -> Any:
    """The union of `types`."""
    return reduce(or_, types)


def schema_name(model: type[BaseModel]) -> str:
    """Name of a request model among the components: its module's last part and its own, for two families share some."""
    return f"{model.__module__.split('.')[-2]}_{model.__name__}"


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
    document["components"]["securitySchemes"] = _KEYS
    settings: GatewaySettings = app.state.services.settings
    document["security"] = [{name: []} for name in _KEYS] if settings.auth.api_keys else []
    return document
