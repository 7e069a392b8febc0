"""The texts that a command works on: its arguments, or the lines of standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from torchless.cli.console import fail


def texts_of(arguments: Sequence[str] | None, what: str) -> tuple[Iterable[str], int | None]:
    """The texts, and their number where it is known; ends the command if there are none.

    Args:
        arguments: The texts given as arguments; none: each line of standard input is a text.
        what: What to do with which texts, for the message: `texts to embed`.
    """
    if arguments:
        return arguments, len(arguments)
    lines = _lines()
    first = next(lines, None)
    if first is None:
        fail(f"there are no {what}: give them as arguments, or one per line on standard input")
    return chain([first], lines), None


def _lines() -> Iterator[str]:
    for line in sys.stdin:
        yield line.rstrip("\n")
