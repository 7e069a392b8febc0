"""`torchless up`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from torchless.cli.bentos import BENTOS, ENVIRONMENTS, GATEWAY, METRICS, METRICS_PORT, pythons_in
from torchless.cli.console import console, fail
from torchless.cli.options import PROJECT, STATE, Config, State, config_files, pairs

DEFAULT_PORTS: Mapping[str, int] = {
    GATEWAY: 3000,
    **{bento.name: bento.port for bento in sorted(BENTOS, key=lambda bento: bento.port)},
    METRICS: METRICS_PORT,
}


def up(
    *,
    port: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=NUMBER",
            show_default=False,
            show_envvar=False,
            help="Port of a service; repeat it for several. By default "
            f"{', '.join(f'{name}={number}' for name, number in DEFAULT_PORTS.items())}. `metrics` is the first of "
            f"{len(BENTOS)} consecutive ports for the services' metrics, on 127.0.0.1; metrics=0 for no metrics.",
        ),
    ] = [],  # noqa: B006  # typer makes a new list
    config: Config = [],  # noqa: B006
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", show_envvar=False, help="Interface to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    state: State = STATE,
    logs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            file_okay=False,
            show_default=False,
            show_envvar=False,
            help="Folder for the logs; by default `logs` in the state folder.",
        ),
    ] = None,
    python: Annotated[
        list[str],
        typer.Option(
            metavar="ENVIRONMENT=PATH",
            show_default=False,
            show_envvar=False,
            help=f"Python of an environment: {', '.join((GATEWAY, *ENVIRONMENTS))}. By default .venv/ENVIRONMENT, "
            "and for the gateway the one that runs this command.",
        ),
    ] = [],  # noqa: B006
) -> None:
    """Start the stack on this machine, and keep it running until Ctrl-C.

    Checks all settings and ports first. A service that dies later is
    restarted, and the end of its log is printed.

    Every option is also an environment variable, for example
    TORCHLESS_UP_PORT="gateway=3700 embedding=3701".
    """
    import asyncio

    from torchless.cli.check import check_settings, settings_files
    from torchless.cli.errors import StackError
    from torchless.cli.services import StackSettings, stack_services
    from torchless.cli.stack import Stack
    from torchless.cli.up import up as run

    ports = _ports(port)
    files = settings_files(PROJECT, config_files(config))
    pythons = {**pythons_in(PROJECT / ".venv"), GATEWAY: Path(sys.executable)} | _pythons(python)
    settings = StackSettings(
        project=PROJECT,
        state=state,
        pythons=pythons,
        host=host,
        gateway_port=ports.pop(GATEWAY),
        metrics_port=ports.pop(METRICS),
        ports=ports,
        configs=files,
    )
    try:
        services = stack_services(settings)
        check_settings(PROJECT, pythons[GATEWAY], files)
        run(Stack(services, state, logs=logs, directory=PROJECT), settings.gateway_url, console())
    except StackError as error:
        fail(str(error))
    except asyncio.CancelledError as error:  # by a second signal
        raise typer.Exit(130) from error


def _ports(values: list[str]) -> dict[str, int]:
    ports = dict(DEFAULT_PORTS)
    for name, value in pairs("--port", values, tuple(DEFAULT_PORTS)).items():
        lowest, highest = (0, 65536 - len(BENTOS)) if name == METRICS else (1, 65535)
        if not value.isdecimal() or not lowest <= int(value) <= highest:
            raise typer.BadParameter(f"{name} must be {lowest} to {highest}, not {value!r}", param_hint="--port")
        ports[name] = int(value)
    return ports


def _pythons(values: list[str]) -> dict[str, Path]:
    return {name: Path(path) for name, path in pairs("--python", values, (GATEWAY, *ENVIRONMENTS)).items()}
