"""The two forms of a log line: a JSON object, or text for people."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

FIELDS = "fields"
"""Name in `extra` of a line's own fields, a mapping."""
_LONGEST_CHAIN = 8
_to_json = json.JSONEncoder(separators=(",", ":"), default=str).encode


class _ServiceFormatter(logging.Formatter):
    """Names the program in each line.

    Args:
        service: Name of the program.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service


class JSONFormatter(_ServiceFormatter):
    """Each line is one JSON object in ASCII, so that no value can begin a line or control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`, without its end."""
        return _to_json(
            {
                "time": _time(record),
                "level": record.levelname.lower(),
                "service": self._service,
                "logger": record.name,
                "message": record.getMessage(),
                **_fields(record),
            }
        )


class TextFormatter(_ServiceFormatter):
    """Time, level, service, message and fields; the stack of an exception follows in indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`, without its end."""
        fields = dict(_fields(record))
        stack = fields.pop("stack", "")
        parts = [_time(record), f"{record.levelname:<7}", self._service, _one_line(record.getMessage())]
        parts += [f"{name}={_value(value)}" for name, value in fields.items()]
        lines = [" ".join(parts), *(f"    {_one_line(line)}" for line in str(stack).splitlines())]
        return "\n".join(lines)


def _time(record: logging.LogRecord) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    second = int(record.created)
    return f"{_second(second)}.{int((record.created - second) * 1000):03d}Z"


@lru_cache(maxsize=1)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).isoformat()[:19]


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, FIELDS, None) or {}
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return fields
    return {**fields, "exception": type(error).__name__, "stack": "".join(_stack(error))}


def _stack(error: BaseException) -> Iterator[str]:
    """The frames of `error` and of what caused it, the newest error first, without messages."""
    cause: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if cause is None:
            return
        yield f"{type(cause).__name__}\n"
        yield from traceback.format_tb(cause.__traceback__)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _value(value: Any) -> str:
    """A value of one word unchanged, any other as JSON."""
    if isinstance(value, str) and value and value.isascii() and value.isprintable() and not set(value) & set(' "=[{'):
        return value
    return _to_json(value)


def _one_line(text: str) -> str:
    """`text` without line ends and control characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
