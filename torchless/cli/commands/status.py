"""`torchless status`."""

from __future__ import annotations

import typer

from torchless.cli.console import console, fail
from torchless.cli.options import GATEWAY_URL, Gateway, Key


def status(gateway: Gateway = GATEWAY_URL, key: Key = "") -> None:
    """Show the health of the gateway and its services.

    Exits with 1 unless all of them are ready.
    """
    from torchless.cli.gateway_api import GatewayError
    from torchless.cli.status import status as run

    try:
        ready = run(gateway, console(), key=key)
    except GatewayError as error:
        fail(str(error))
    raise typer.Exit(0 if ready else 1)
