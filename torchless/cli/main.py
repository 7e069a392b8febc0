"""The `torchless` command. Its subcommands import what they need when they run, so that `--help` is fast."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import torchless
from torchless.cli.commands.check import check
from torchless.cli.commands.down import down
from torchless.cli.commands.embed import embed
from torchless.cli.commands.logs import logs
from torchless.cli.commands.models import models
from torchless.cli.commands.rerank import rerank
from torchless.cli.commands.status import status
from torchless.cli.commands.up import up

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes are for people; in a file or a pipe they break lines.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"auto_envvar_prefix": "TORCHLESS", "help_option_names": ["-h", "--help"]},
)
for subcommand in (up, check, logs, down, status, models, embed, rerank):
    app.command()(subcommand)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"torchless {torchless.__version__}, Python {sys.version.split()[0]}")
        raise typer.Exit


@app.callback()
def main(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, show_envvar=False, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """A retrieval stack as BentoML services, with no PyTorch in the API tier."""
