"""The OpenAPI document, made from the registered routes; accurate, because tests are generated from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import CoreModeRef, CoreRef, DefsRef, GenerateJsonSchema

from gateway.http.headers import MIN_TIMEOUT_S, TIMEOUT_HEADER
from gateway.http.json_body import BodyVariant

Mode = Literal["validation", "serialization"]
_REF = "#/components/schemas/{model}"
_MEANINGS = {
    200: "The answer",
    400: "The request is wrong; the message says what to change",
    401: "The API key is missing or not valid",
    403: "The API key lacks the scope that the route requires",
    404: "There is no such model or lease",
    409: "The idempotency key belongs to another request",
    413: "Past a limit of the gateway, the model or the devices, or a value that the model does not support",
    415: "The body is not JSON, or is compressed in an unsupported way",
    422: "The body or a header cannot be parsed, or the vocabulary does not hold the input",
    424: "The service failed",
    429: "Overloaded; retry after the Retry-After delay",
    500: "The gateway or the service failed",
    503: "The service is unreachable or not ready",
    504: "The deadline expired",
}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The key, with or without the word Bearer."},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The key."},
}
_HEADERS = [
    {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "required": False,
        "description": "The request's deadline, in seconds from its arrival.",
        "schema": {"type": "number", "minimum": MIN_TIMEOUT_S},
    },
    {
        "name": "x-request-id",
        "in": "header",
        "required": False,
        "description": "The request's id, repeated in the response; generated when absent.",
        "schema": {"type": "string"},
    },
]


@dataclass(frozen=True, slots=True)
class MediaType:
    """In place of an answer's type: text of a media type other than JSON."""

    name: str
    """The media type."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One route and method, as the document describes it."""

    method: str
    """The method, in capitals."""
    path: str
    """The path, as Starlette has it."""
    about: Callable[..., Any]
    """Its name and docstring describe the route."""
    tag: str
    """The API family."""
    scope: str | None
    """The scope that it requires; None: it is open to everyone."""
    answers: Mapping[int, Sequence[Any]]
    """By status, the types that an answer may have."""
    query: type[BaseModel] | None = None
    """The query parameters."""
    bodies: Sequence[type[BaseModel]] = ()
    """The models of JSON bodies that it takes."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    """Example bodies by what they show."""
    body_type: str = "application/json"
    """The body's media type; without `bodies`, its content is not described further."""
    reads_headers: bool = True
    """Whether it reads the headers that most routes read."""

    @property
    def id(self) -> str:
        """Its id, unique in the document."""
        path = self.shown_path.strip("/").replace("/", "_").replace("{", "").replace("}", "") or "root"
        return f"{path}_{self.about.__name__}"

    @property
    def shown_path(self) -> str:
        """The path without the converters of its parameters."""
        return self.path.replace(":path}", "}")

    def with_json(self, variants: Sequence[BodyVariant]) -> Operation:
        """The operation with JSON bodies."""
        examples = {name: value for variant in variants for name, value in variant.examples.items()}
        return replace(self, bodies=[variant.body for variant in variants], examples=examples)

    def with_stream(self, media_type: str) -> Operation:
        """The operation with a body of another media type."""
        return replace(self, body_type=media_type)

    def types(self) -> Iterator[tuple[Any, Mode]]:
        """The types that it refers to."""
        yield from ((body, "validation") for body in self.bodies)
        for types in self.answers.values():
            yield from ((each, "serialization") for each in types if not isinstance(each, MediaType))


class OpenAPI:
    """Describes an API; the document is made when it is first read.

    Args:
        title: The API's title.
        version: Its version.
        description: What it is.
        operations: Its routes.
    """

    def __init__(self, title: str, version: str, description: str, operations: Sequence[Operation]) -> None:
        self._info = {"title": title, "version": version, "description": description}
        self._operations = operations

    def document(self, *, requires_key: bool) -> dict[str, Any]:
        """The document of a gateway that does, or does not, require API keys."""
        return {**self._document, "security": [{name: []} for name in _SECURITY] if requires_key else []}

    @cached_property
    def _document(self) -> dict[str, Any]:
        adapters = {
            (each, mode): TypeAdapter(each) for operation in self._operations for each, mode in operation.types()
        }
        schemas, definitions = TypeAdapter.json_schemas(
            [(each, mode, adapter) for (each, mode), adapter in adapters.items()],
            ref_template=_REF,
            schema_generator=_SchemaGenerator,
        )
        paths: dict[str, dict[str, Any]] = {}
        for operation in self._operations:
            described = _described(operation, schemas)
            paths.setdefault(operation.shown_path, {})[operation.method.lower()] = described
        components = {"schemas": dict(sorted(definitions["$defs"].items())), "securitySchemes": _SECURITY}
        return {"openapi": "3.1.0", "info": self._info, "paths": paths, "components": components}


class _SchemaGenerator(GenerateJsonSchema):
    """Names a component by its API family and its class: families have classes of the same name."""

    def get_defs_ref(self, core_mode_ref: CoreModeRef) -> DefsRef:
        """The name of the class, after its family's and an underscore where it has one."""
        path, _, number = core_mode_ref[0].partition(":")
        if path.startswith("gateway.apis."):
            family, _, name = path.split(".")[-3:]
            path = f"{family}_{name}"
        return super().get_defs_ref((CoreRef(f"{path}:{number}"), core_mode_ref[1]))


def _described(operation: Operation, schemas: Mapping[tuple[Any, Mode], Any]) -> dict[str, Any]:
    summary, _, description = (operation.about.__doc__ or "").partition("\n\n")
    texts = [" ".join(description.split())]
    if operation.scope is not None:
        texts.append(f"Requires the scope `{operation.scope}`.")
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": " ".join(summary.split()).rstrip("."),
        "description": " ".join(filter(None, texts)),
        "operationId": operation.id,
        "responses": {str(status): _answer(status, types, schemas) for status, types in operation.answers.items()},
    }
    headers = _HEADERS if operation.reads_headers else []
    if parameters := [*_path_parameters(operation.shown_path), *_query_parameters(operation.query), *headers]:
        described["parameters"] = parameters
    if operation.method == "POST":
        described["requestBody"] = {"required": True, "content": {operation.body_type: _body(operation, schemas)}}
    if operation.scope is None:
        described["security"] = []
    return described


def _body(operation: Operation, schemas: Mapping[tuple[Any, Mode], Any]) -> dict[str, Any]:
    if not operation.bodies:
        return {"schema": {"type": "string", "format": "binary"}}
    examples = {name: {"summary": name, "value": value} for name, value in operation.examples.items()}
    return {"schema": _any_of([schemas[body, "validation"] for body in operation.bodies]), "examples": examples}


def _answer(status: int, types: Sequence[Any], schemas: Mapping[tuple[Any, Mode], Any]) -> dict[str, Any]:
    (first, *_) = types
    if isinstance(first, MediaType):
        content: dict[str, Any] = {first.name: {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": _any_of([schemas[each, "serialization"] for each in types])}}
    return {"description": _MEANINGS[status], "content": content}


def _any_of(schemas: Sequence[Any]) -> Any:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = path.replace("}", "{").split("{")[1::2]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(query: type[BaseModel] | None) -> list[dict[str, Any]]:
    properties = {} if query is None else query.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "description": about.pop("description", ""), "schema": about}
        for name, about in properties.items()
    ]
