"""Paths of request fields: tuples of names and indices in code, strings such as `texts[3].ids` for people.

The string form is that of `google.rpc.BadRequest.FieldViolation.field`. Code renames and matches tuples; only the gRPC
wire and the edges that answer people format and parse.
"""

from __future__ import annotations

import re
from typing import TypeAlias

FieldPath: TypeAlias = tuple[str | int, ...]
"""Names and indices from the request inwards, for instance `("texts", 3)`."""
_PART = re.compile(r"(?:^|\.)(?P<name>[^.\[\]]+)|\[(?P<index>\d+)\]")


def format_path(path: FieldPath) -> str:
    """`path` as people read it: `("queries", 0, "documents", 2)` is `queries[0].documents[2]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def parse_path(text: str) -> FieldPath:
    """The path that `text` is the string form of; text that is no path becomes a single name."""
    path: list[str | int] = []
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            return (text,)
        path.append(part["name"] if part["index"] is None else int(part["index"]))
        position = part.end()
    return tuple(path) if format_path(tuple(path)) == text else (text,)
