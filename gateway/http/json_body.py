"""Parses the bytes of a request into a validated body, at a cost that follows their number.

What a body turns into must stay near its size, whatever it holds. Lists stop at their first wrong item (see
`gateway.apis.field_types`), and bodies with very many values are refused before they are parsed: a one-digit number
takes fifty times its bytes while it is parsed, an empty list a hundred times.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response

from gateway.http.error_family import ErrorFamily
from gateway.http.exceptions import MalformedRequestError, not_json
from torchless.contracts.errors import FieldViolation, describe, input_too_large

Body = TypeVar("Body", bound=BaseModel)
MAX_CONTAINERS = 100_000
"""Most lists and objects in one body."""
MAX_VALUES = 1_000_000
"""Most values in one body, for instance token ids of all inputs. OpenAI's API takes 300,000 tokens in one request."""
_SHOWN_VIOLATIONS = 5


@dataclass(frozen=True, slots=True)
class BodyVariant:
    """A JSON body that a route takes, and what handles it. Most routes have one; paths that APIs share have several."""

    family: ErrorFamily
    """How its errors are answered."""
    body: type[BaseModel]
    """Its model."""
    answer: Any
    """The answer's type, for the OpenAPI document."""
    examples: Mapping[str, Any]
    """Example bodies by what they show."""
    handler: Callable[[Any, Any], Coroutine[Any, Any, Response]]
    """Takes the validated body and a `Call`."""


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """A body whose variant is known."""

    variant: BodyVariant
    """The variant."""
    validated: Callable[[], Any]
    """Validates the body; raises as `parse`."""


def require_json(headers: Headers) -> None:
    """Refuses a request without a JSON media type: `application/json`, or one with the suffix `+json` (RFC 6839).

    Browsers send requests with other types, and with none, for the page of every origin; they ask before they send
    these.

    Raises:
        HTTPError: 415.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    has_suffix = media_type.startswith("application/") and media_type.endswith("+json")
    if media_type != "application/json" and not has_suffix:
        raise not_json()


Chooser = Callable[[Mapping[str, Any], Mapping[str, BodyVariant]], BodyVariant]
"""Picks the variant of a body by its content."""


def single(variant: BodyVariant) -> Callable[[bytes], ParsedBody]:
    """Reads every body as `variant`."""
    return lambda raw: ParsedBody(variant, partial(parse, variant.body, raw))


def by_field(content: Mapping[str, Any], variants: Mapping[str, BodyVariant]) -> BodyVariant:
    """The variant whose field `content` has.

    Args:
        content: The body.
        variants: By the name of a field that no other variant has.
    """
    found = [name for name in variants if content.get(name) is not None]
    if len(found) == 1:
        return variants[found[0]]
    answers = "; ".join(f"{name} gets the answer of {variant.family.name}" for name, variant in variants.items())
    description = f"send exactly one of {' and '.join(variants)}: {answers}"
    violations = tuple(FieldViolation((name,), description) for name in variants)
    raise MalformedRequestError(violations, f"{', '.join(variants)}: {description}")


def several(variants: Mapping[str, BodyVariant], choose: Chooser = by_field) -> Callable[[bytes], ParsedBody]:
    """Reads a body as the variant that `choose` picks by its content."""

    def parse_variant(raw: bytes) -> ParsedBody:
        content = parse(_AnyObject, raw).root
        variant = choose(content, variants)
        return ParsedBody(variant, partial(_validate, variant.body, content))

    return parse_variant


def parse(model: type[Body], raw: bytes) -> Body:
    """The body that `raw` holds as JSON.

    Raises:
        MalformedRequestError: It is not JSON, or not what `model` takes.
        TorchlessError: INPUT_TOO_LARGE, when it holds more than `MAX_CONTAINERS` or `MAX_VALUES`.
    """
    _check_structure(raw)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise _malformed(error) from None


def _validate(model: type[Body], content: Mapping[str, Any]) -> Body:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _malformed(error) from None


class _AnyObject(RootModel[dict[str, Any]]):
    model_config = ConfigDict(strict=True)


def _malformed(error: ValidationError) -> MalformedRequestError:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    violations = tuple(FieldViolation(each["loc"], each["msg"]) for each in found if each["loc"])
    # Of a body that is no object, no field is at fault.
    about_body = [each["msg"] for each in found if not each["loc"]]
    return MalformedRequestError(violations, "; ".join(about_body) or describe(violations[:_SHOWN_VIOLATIONS]))


def _check_structure(raw: bytes) -> None:
    """Counts outside strings, but only where counting everywhere finds too many.

    Counts with arrays over the whole body, because large bodies may hold many short strings.
    """
    if raw.count(b"[") + raw.count(b"{") <= MAX_CONTAINERS and raw.count(b",") <= MAX_VALUES:
        return
    # Without its escapes, a string has quotes only at its ends. Pairs of backslashes go first: they escape nothing.
    plain = np.frombuffer(raw.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    outside = plain[~np.logical_xor.accumulate(plain == ord('"'))]
    if np.count_nonzero((outside == ord("[")) | (outside == ord("{"))) > MAX_CONTAINERS:
        raise input_too_large("body", f"holds more than {MAX_CONTAINERS} lists and objects; send fewer inputs")
    if np.count_nonzero(outside == ord(",")) > MAX_VALUES:
        raise input_too_large("body", f"holds more than {MAX_VALUES} values; send fewer inputs")
