"""The lists of request fields agree with the routes and their schemas, and the documentation with the lists."""

from __future__ import annotations

import pytest

from docs import request_fields
from docs.request_fields import FIELDS
from gateway.apis.families import FAMILIES
from gateway.apis.known_fields import KnownFields

OWN = {"top_n", "raw_scores", "max_doc_length", "truncation"}
"""Fields that no imitated API has on a route: litellm's `top_n` with `texts`, and fields of `/rerank` on `/score`."""


def schema_fields(path: str) -> set[str]:
    """The fields of all bodies that a path takes."""
    operations = [each for family in FAMILIES for each in family.operations if each.method == "POST"]
    bodies = [body for each in operations if each.path == path for body in each.bodies]
    assert bodies, path
    return {name for body in bodies for name in body.model_fields}


IMITATED = sorted({path for known in FIELDS for path in known.paths})


@pytest.mark.parametrize("known", FIELDS, ids=lambda known: f"{known.paths[0]}-{known.api}")
def test_listed_fields_are_in_the_schema_unless_they_are_harmless(known: KnownFields) -> None:
    for path in known.paths:
        fields = schema_fields(path)
        assert set(known.base) | set(known.obeyed) | set(known.refused) <= fields
        assert not fields & set(known.harmless)


@pytest.mark.parametrize("path", IMITATED)
def test_every_field_of_a_schema_is_listed(path: str) -> None:
    of_route = [known for known in FIELDS if path in known.paths]
    listed = {name for known in of_route for name in (*known.obeyed, *known.refused)}
    assert schema_fields(path) - listed <= OWN


def test_every_route_of_an_imitated_api_is_listed() -> None:
    posts = {
        operation.path
        for family in FAMILIES
        for operation in family.operations
        if operation.method == "POST" and not operation.path.startswith("/v1/gpu")
    }
    assert posts == set(IMITATED)


def test_the_documentation_has_the_current_lists() -> None:
    assert request_fields.TARGET.read_text() == request_fields.page(), "run `make docs`"
