"""The terminal, or the file or pipe, that the command prints to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

_UNLIMITED = 100_000
"""Width of what is not a terminal, in characters: lines are never wrapped there, so that programs can read them."""


def console(*, stderr: bool = False) -> Console:
    """The standard output, or the standard error: as wide as the terminal, and of any width if it is none."""
    from rich.console import Console

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if is_terminal else _UNLIMITED)


def fail(message: str) -> NoReturn:
    """Prints what went wrong and ends the command with exit status 1."""
    console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)
