"""The request fields of the imitated APIs, and what each route does with them.

Each family lists them in its `fields.py`, next to its schemas. `docs/clients.md` shows the lists, and tests send every
example: a field that changes the result of the imitated server is obeyed or refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class KnownFields:
    """The fields of one API's request on a route."""

    paths: tuple[str, ...]
    """The paths of the route."""
    api: str
    """Name of the API."""
    source: str
    """Where the API declares its fields."""
    base: Mapping[str, Any]
    """The smallest request, with the fields that every request has."""
    obeyed: Mapping[str, Any] = field(default_factory=dict)
    """Obeyed fields, each with a value that changes the result."""
    refused: Mapping[str, Any] = field(default_factory=dict)
    """Refused fields, each with a value that the API takes and that is refused."""
    harmless: Mapping[str, Any] = field(default_factory=dict)
    """Fields that do not change the result, each with a value that is accepted."""
