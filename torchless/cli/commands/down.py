"""`torchless down`."""

from __future__ import annotations

from torchless.cli.console import console
from torchless.cli.options import STATE, State


def down(state: State = STATE) -> None:
    """Stop the stack.

    It finds everything that runs, also if `torchless up` was killed.
    """
    from torchless.cli.down import down as run

    run(state, console())
