"""Reads the lines of a service's log, which are JSON objects or text."""

from __future__ import annotations

import json
import re
from typing import Any

_TEXT = re.compile(
    r"^\S*\d\dT\d\d:\S+ +\[?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\]? +(?:\[[^\]]*\]|[\w.-]+:?) (?P<text>.*)"
)
"""A line in our form for people, or in BentoML's: `<time> ERROR <service> <text>`, `<time> [ERROR] [cli] <text>`."""
_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception|Exit|Interrupt)\b.*")
"""The last line of a traceback."""


def text_of(line: str) -> str:
    """The message of a line; a line in another form unchanged."""
    return _parsed(line)[1] or line


def error_in(line: str) -> str:
    """The message of a line, if the line is an error; empty otherwise."""
    level, text = _parsed(line)
    if text:
        return text if level in ("ERROR", "CRITICAL") else ""
    return line.strip() if _EXCEPTION.match(line) else ""


def readable(line: str) -> str:
    """A line as people read it: time, level, message and fields, and the stack of an error in lines below."""
    entry = _entry(line)
    if not entry.get("message"):
        return line
    time, level, message = (str(entry.pop(name, "")) for name in ("time", "level", "message"))
    stack = str(entry.pop("stack", ""))
    for name in ("service", "logger"):
        entry.pop(name, None)
    fields = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in entry.items())
    return "\n".join([" ".join([time, f"{level.upper():<7}", message, *fields]), *stack.splitlines()])


def _parsed(line: str) -> tuple[str, str]:
    """Level and message of a line; empty for a line in another form."""
    if entry := _entry(line):
        return str(entry.get("level", "")).upper(), str(entry.get("message", ""))
    found = _TEXT.match(line)
    return (found["level"], found["text"]) if found else ("", "")


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line) if line.startswith("{") else None
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) else {}
