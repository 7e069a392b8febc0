"""The bodies that a route takes: mostly one, and where several APIs share a path, one for each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from gateway.http.error_family import ErrorFamily
from gateway.http.exceptions import MalformedRequestError
from gateway.http.json_body import json_object, parsed, validated
from torchless.contracts.errors import FieldViolation


@dataclass(frozen=True, slots=True)
class Form:
    """A body that a route takes, and what comes of it."""

    family: ErrorFamily
    """How errors look."""
    body: type[BaseModel]
    """What is taken."""
    answer: Any
    """What is answered, for the API's description."""
    examples: Mapping[str, Any]
    """Bodies by what they show."""
    handler: Callable[[Any, Any], Coroutine[Any, Any, Response]]
    """Takes a validated body and a `Call`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A body that has arrived: its form, and how it is read as that form."""

    form: Form
    """The form."""
    body: Callable[[], Any]
    """The validated body; raises as `gateway.http.json_body.parsed`."""


def only(form: Form) -> Callable[[bytes], Reading]:
    """Reads every body as `form`."""
    return lambda raw: Reading(form, lambda: parsed(form.body, raw))


def told_apart(forms: Mapping[str, Form]) -> Callable[[bytes], Reading]:
    """Reads a body as that of `forms` whose field it has.

    Args:
        forms: By the name of a field that no other of them has.
    """

    def reading(raw: bytes) -> Reading:
        given = json_object(raw)
        named = [name for name in forms if given.get(name) is not None]
        if len(named) == 1:
            form = forms[named[0]]
            return Reading(form, lambda: validated(form.body, given))
        answers = "; ".join(f"with {name} the answer is that of {form.family.name}" for name, form in forms.items())
        description = f"give one of {' and '.join(forms)}: {answers}"
        violations = tuple(FieldViolation((name,), description) for name in forms)
        raise MalformedRequestError(f"{', '.join(forms)}: {description}", violations)

    return reading
