"""Field paths and their string form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchless.contracts.field_path import FieldPath, format_path, parse_path


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("texts",), "texts"),
        (("texts", 3), "texts[3]"),
        (("queries", 0, "documents", 12), "queries[0].documents[12]"),
        (("token_ids", 1, 7), "token_ids[1][7]"),
        ((0, "name"), "[0].name"),
        ((), ""),
    ],
)
def test_a_path_and_its_text_convert_to_each_other(path: FieldPath, text: str) -> None:
    assert (format_path(path), parse_path(text)) == (text, path)


@given(st.text(max_size=20))
def test_any_text_survives_being_parsed_and_formatted(text: str) -> None:
    assert format_path(parse_path(text)) == text


@pytest.mark.parametrize("text", ["a..b", "a[", "a[x]", "a[1", ".a", "a.", "[01]"])
def test_text_that_is_no_path_becomes_a_single_name(text: str) -> None:
    assert parse_path(text) == (text,)
