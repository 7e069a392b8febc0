"""Errors about a part of a request, in words of the whole."""

from __future__ import annotations

import pytest

from torchless.clients.cache.service import with_request_indices
from torchless.contracts.errors import ErrorKind, FieldViolation, TorchlessError, invalid_input
from torchless.contracts.field_path import parse_path


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("texts[0]", "texts[3]"),
        ("texts[1]", "texts[5]"),
        ("token_ids[1][7]", "token_ids[5][7]"),
        ("token_ids[1]", "token_ids[5]"),
        ("texts", "texts"),
        ("dimensions", "dimensions"),
        ("texts[9]", "texts[9]"),
    ],
)
def test_field_gets_its_index_in_the_whole_request(field: str, expected: str) -> None:
    error = with_request_indices(invalid_input(parse_path(field), "is wrong"), [3, 5])
    assert error.message == f"{expected}: is wrong"
    assert error.violations == (FieldViolation(parse_path(expected), "is wrong"),)


def test_several_fields_are_renamed_once_each() -> None:
    violations = tuple(FieldViolation(("texts", index), "is wrong") for index in (0, 1))
    whole = TorchlessError(
        ErrorKind.INVALID_INPUT, "texts[0]: is wrong; texts[1]: is wrong", violations=violations, retry_after_s=2.0
    )
    error = with_request_indices(whole, [1, 4])
    assert error.message == "texts[1]: is wrong; texts[4]: is wrong"
    assert [each.field for each in error.violations] == ["texts[1]", "texts[4]"]
    assert error.retry_after_s == 2.0


def test_metadata_index_is_that_of_the_whole_request() -> None:
    error = with_request_indices(invalid_input(("texts", 1), "is empty", index="1", other="1"), [3, 5])
    assert error.metadata == {"index": "5", "other": "1"}


def test_quoted_parts_of_a_message_are_not_renamed() -> None:
    error = TorchlessError(ErrorKind.NOT_FOUND, "model: 'texts[0]' is not served")
    assert with_request_indices(error, [3]).message == error.message


def test_field_name_that_is_a_prefix_of_another_is_not_confused_with_it() -> None:
    violations = (FieldViolation(("token_ids", 1), "a"), FieldViolation(("token_ids", 1, 2), "b"))
    whole = TorchlessError(ErrorKind.INVALID_INPUT, "token_ids[1]: a; token_ids[1][2]: b", violations=violations)
    assert with_request_indices(whole, [0, 4]).message == "token_ids[4]: a; token_ids[4][2]: b"
