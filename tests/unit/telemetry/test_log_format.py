"""The two forms of a line: what is in it, and that no value breaks out of it."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from torchless.telemetry.log_format import FIELDS, JSONFormatter, TextFormatter

SECRET = "what a caller sent"
HOSTILE = [
    'a\n{"level":"error","message":"forged"}',
    "a\r\nb",
    "a\x1b[2Jb",
    "a\x00b",
    "a\x7fb",
    "a\u2028b",
    "a\u0085b",
    "a\x9b2Jb",
    "\ud800",
    'a" b=c',
]


def record(message: str, *given: object, exc_info: Any = None, **fields: Any) -> logging.LogRecord:
    made = logging.getLogger("gateway.part").makeRecord(
        "gateway.part", logging.WARNING, "", 0, message, given, exc_info, extra={FIELDS: fields} if fields else None
    )
    made.created = 1_700_000_000.0421
    return made


def failed() -> Any:
    """What `sys.exc_info` has about an error with a cause; both messages hold what a caller sent."""
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ValueError(SECRET) from error
    except ValueError:
        return sys.exc_info()


def test_json_line_has_the_facts_in_order() -> None:
    line = JSONFormatter("gateway").format(record("cache: %s", "full", status=200, queue_ms=1.5))
    assert list(json.loads(line).items()) == [
        ("time", "2023-11-14T22:13:20.042Z"),
        ("level", "warning"),
        ("service", "gateway"),
        ("logger", "gateway.part"),
        ("message", "cache: full"),
        ("status", 200),
        ("queue_ms", 1.5),
    ]


def test_text_line_has_the_facts_in_order() -> None:
    line = TextFormatter("gateway").format(record("cache: %s", "full", status=200, model="a/b", note="two words"))
    assert line == '2023-11-14T22:13:20.042Z WARNING gateway cache: full status=200 model=a/b note="two words"'


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("formatter", [JSONFormatter("gateway"), TextFormatter("gateway")])
def test_no_value_breaks_out_of_its_line(formatter: logging.Formatter, hostile: str) -> None:
    line = formatter.format(record(f"said {hostile}", tenant=hostile, many=[hostile]))
    assert len(line.splitlines()) == 1
    assert not any(ord(character) < 32 or 0x7F < ord(character) < 0xA0 for character in line)
    assert "\x7f" not in line or isinstance(formatter, JSONFormatter)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_json_line_gives_values_unchanged(hostile: str) -> None:
    line = json.loads(JSONFormatter("gateway").format(record("%s", hostile, tenant=hostile)))
    assert (line["message"], line["tenant"]) == (hostile, hostile)


def test_text_value_cannot_look_like_another_field() -> None:
    line = TextFormatter("gateway").format(record("request", tenant="a status=200", status=500))
    assert line.endswith('tenant="a status=200" status=500')


@pytest.mark.parametrize("formatter", [JSONFormatter("gateway"), TextFormatter("gateway")])
def test_exception_is_its_type_and_stack_without_message(formatter: logging.Formatter) -> None:
    line = formatter.format(record("failed", exc_info=failed()))
    assert SECRET not in line
    assert "ValueError" in line
    assert "KeyError" in line
    assert __file__ in line


def test_lines_of_a_stack_are_indented_in_text() -> None:
    first, *rest = TextFormatter("gateway").format(record("failed", exc_info=failed())).splitlines()
    assert first.endswith("failed exception=ValueError")
    assert rest
    assert all(line.startswith("    ") for line in rest)
