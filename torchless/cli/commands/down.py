"""`torchless down`."""

from __future__ import annotations

from torchless.cli.console import console
from torchless.cli.options import STATE, State


def down(state: State = STATE) -> None:
    """Stop the stack, also if `torchless up` was killed and left services behind."""
    from torchless.cli.down import down as run

    run(state, console())
