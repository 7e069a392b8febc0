"""Options that several subcommands take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

import torchless
from torchless.cli.bentos import BENTOS, GATEWAY

PROJECT = Path(torchless.__file__).parents[1]
"""The checkout that contains this package."""
SERVICES = (GATEWAY, *(bento.name for bento in BENTOS))
"""Names of the services that `torchless up` starts."""
STATE = PROJECT / ".torchless"
"""Default folder for the state of a stack."""
GATEWAY_URL = "http://127.0.0.1:3000"
"""Default base URL of the gateway."""

Gateway = Annotated[
    str, typer.Option("--gateway", envvar="TORCHLESS_GATEWAY_URL", metavar="URL", help="Base URL of the gateway.")
]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="TORCHLESS_API_KEY",
        metavar="KEY",
        show_default=False,
        help="API key of the gateway. Prefer the variable: other users can see the arguments of a command.",
    ),
]
State = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="TORCHLESS_STATE",
        metavar="FOLDER",
        file_okay=False,
        show_default=False,
        help="Folder for the logs and the state of one stack; by default .torchless in the checkout.",
    ),
]
Config = Annotated[
    list[str],
    typer.Option(
        "--config",
        metavar="NAME=FILE",
        show_default=False,
        show_envvar=False,
        help=f"Settings file of a service: {', '.join(SERVICES)}; repeat it for several. By default the file that "
        "TORCHLESS_NAME_CONFIG names in the environment, else configs/NAME.yaml.",
    ),
]


def pairs(option: str, values: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Splits the values of an option that are written as `NAME=VALUE`.

    Raises:
        typer.BadParameter: A value has no `=`, or a name that is not among `names`.
    """
    found = {}
    for value in values:
        name, separator, rest = value.partition("=")
        if not separator or not rest:
            raise typer.BadParameter(f"{value!r} must be written as NAME=VALUE", param_hint=option)
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(names)}{hint}", param_hint=option)
        found[name] = rest
    return found


def config_files(values: Sequence[str]) -> Mapping[str, Path]:
    """The settings files that `--config` names, by service.

    Raises:
        typer.BadParameter: A file does not exist, or a service is unknown.
    """
    files = {name: Path(path) for name, path in pairs("--config", values, SERVICES).items()}
    for name, path in files.items():
        if not path.is_file():
            raise typer.BadParameter(f"the settings file of {name} does not exist: {path}", param_hint="--config")
    return files
