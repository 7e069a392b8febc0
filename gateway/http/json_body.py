"""Bytes of a request to a validated body, at a cost that follows their number.

What a body turns into must stay near its size, whatever it holds. Lists stop at their first wrong item (see
`gateway.apis.field_types`), and bodies with very many values are refused before they are parsed: a one-digit number
takes fifty times its bytes while it is parsed, an empty list a hundred times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from gateway.http.exceptions import MalformedRequestError
from torchless.contracts.errors import FieldViolation, input_too_large

Body = TypeVar("Body", bound=BaseModel)
MOST_CONTAINERS = 100_000
"""Most lists and objects in one body."""
MOST_VALUES = 1_000_000
"""Most values in one body, for instance token ids of all inputs. OpenAI's API takes 300,000 tokens in one request."""


def parsed(model: type[Body], raw: bytes) -> Body:
    """The body that `raw` holds as JSON.

    Raises:
        MalformedRequestError: It is no JSON, or not what `model` takes.
        TorchlessError: INPUT_TOO_LARGE, when it holds more than `MOST_CONTAINERS` or `MOST_VALUES`.
    """
    _check_structure(raw)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise _malformed(error) from None


def json_object(raw: bytes) -> dict[str, Any]:
    """The object that `raw` holds as JSON, of whatever fields; raises as `parsed`."""
    return parsed(_AnyObject, raw).root


def validated(model: type[Body], given: Mapping[str, Any]) -> Body:
    """The body that `given`, from `json_object`, is.

    Raises:
        MalformedRequestError: It is not what `model` takes.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _malformed(error) from None


class _AnyObject(RootModel[dict[str, Any]]):
    model_config = ConfigDict(strict=True)


def _malformed(error: ValidationError) -> MalformedRequestError:
    violations = tuple(
        FieldViolation(e["loc"], e["msg"])
        for e in error.errors(include_url=False, include_context=False, include_input=False)
    )
    message = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations[:5])
    return MalformedRequestError(message, tuple(v for v in violations if v.path))


def _check_structure(raw: bytes) -> None:
    """Counts outside strings, where counting everywhere finds too many.

    Of whole arrays, for bodies are large here and their strings may be many and short.
    """
    if raw.count(b"[") + raw.count(b"{") <= MOST_CONTAINERS and raw.count(b",") <= MOST_VALUES:
        return
    # Without its escapes, a string has no quote but at its ends. Pairs of backslashes go first: they escape nothing.
    plain = np.frombuffer(raw.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    outside = plain[~np.logical_xor.accumulate(plain == ord('"'))]
    if np.count_nonzero((outside == ord("[")) | (outside == ord("{"))) > MOST_CONTAINERS:
        raise input_too_large("body", f"holds more than {MOST_CONTAINERS} lists and objects; send fewer inputs")
    if np.count_nonzero(outside == ord(",")) > MOST_VALUES:
        raise input_too_large("body", f"holds more than {MOST_VALUES} values; send fewer inputs")
