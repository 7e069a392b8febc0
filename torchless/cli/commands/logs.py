"""`torchless logs`."""

from __future__ import annotations

from typing import Annotated

import typer

from torchless.cli.console import console, fail
from torchless.cli.options import SERVICES, STATE, State


def logs(
    service: Annotated[str, typer.Argument(help=f"One of {', '.join(SERVICES)}; by default all.")] = "",
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines as they come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines of each log.")] = 50,
    state: State = STATE,
) -> None:
    """Show the logs of the stack that runs, or of the last one."""
    from torchless.cli.logs import print_logs
    from torchless.cli.state import read_state

    found = read_state(state)
    if found is None:
        fail(f"no stack was started with its state in {state}; start it with `torchless up`, or set --state")
    names = {name: found.logs / f"{name}.log" for name in found.services}
    if service and service not in names:
        fail(f"there is no service {service!r}; the stack has {', '.join(names)}")
    try:
        print_logs({service: names[service]} if service else names, console(), lines=lines, follow=follow)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
