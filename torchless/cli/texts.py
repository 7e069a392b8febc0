"""The texts that a command works on: its arguments, or the lines of standard input."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TextIO

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
    try:
        # A file object of our own: Python closes `sys.stdin` when it ends, and would wait for a thread that reads it.
        source: TextIO = os.fdopen(os.dup(sys.stdin.fileno()), encoding=sys.stdin.encoding, errors=sys.stdin.errors)
    except io.UnsupportedOperation:  # it is no file, for example in a test
        source = sys.stdin
    for line in source:
        yield line.rstrip("\n")
