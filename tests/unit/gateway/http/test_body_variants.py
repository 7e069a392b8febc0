"""Body variants of one path, chosen by a field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from gateway.apis.rerank import schemas as rerank
from gateway.apis.rerank.errors import RERANK_DOCUMENTS
from gateway.apis.tei import schemas as tei
from gateway.apis.tei.errors import TEI
from gateway.http.exceptions import MalformedRequestError
from gateway.http.json_body import MAX_VALUES, BodyVariant, parse, several
from torchless.contracts.errors import ErrorKind, TorchlessError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


async def _never(body: Any, call: Any) -> Response:
    raise AssertionError("bodies are only read here")


VARIANTS = {
    "texts": BodyVariant(TEI, tei.RerankRequest, None, {}, _never),
    "documents": BodyVariant(RERANK_DOCUMENTS, rerank.RerankRequest, None, {}, _never),
}
parse_variant = several(VARIANTS)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"texts": ["a"], "query": "q"}, "texts"),
        ({"documents": ["a"], "query": "q"}, "documents"),
        ({"texts": None, "documents": ["a"], "query": "q"}, "documents"),
        ({"texts": ["a"], "documents": None, "query": "q"}, "texts"),
    ],
)
def test_the_present_field_chooses_the_variant(body: dict[str, Any], name: str) -> None:
    found = parse_variant(json.dumps(body).encode())
    assert found.variant is VARIANTS[name]
    assert getattr(found.validated(), name) == ["a"]


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"1", b'{"texts": [}', b"\xff", b'{"query": "q"}', b'{"texts": 1, "documents": 1}']
)
def test_bodies_with_neither_field_or_both_are_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        parse_variant(raw)


def test_a_body_of_too_many_values_is_refused_before_its_variant_is_chosen() -> None:
    with pytest.raises(TorchlessError, match="values") as raised:
        parse_variant(b'{"texts":[' + b"1," * (MAX_VALUES + 1) + b"1]}")
    assert raised.value.kind is ErrorKind.INPUT_TOO_LARGE


def _outcome(read: Any) -> Any:
    try:
        return read()
    except MalformedRequestError as error:
        return error.violations


@given(
    st.sampled_from(sorted(VARIANTS)),
    st.dictionaries(st.sampled_from(["query", "top_n", "raw_scores"]), values),
    values,
)
def test_a_variant_is_validated_as_if_it_were_the_only_one(name: str, fields: dict[str, Any], value: Any) -> None:
    raw = json.dumps({**fields, name: [value]}).encode()
    assert _outcome(parse_variant(raw).validated) == _outcome(lambda: parse(VARIANTS[name].body, raw))
