"""`torchless check`."""

from __future__ import annotations

import sys
from pathlib import Path

from torchless.cli.console import console, fail
from torchless.cli.options import PROJECT, SERVICES, Config, config_files


def check(config: Config = []) -> None:  # noqa: B006  # typer makes a new list
    """Check the settings of all services, without starting any.

    Prints a sentence for each fault and exits with 1; `torchless up` checks
    the same before it starts.
    """
    from torchless.cli.check import check_settings, settings_files
    from torchless.cli.errors import StackError

    files = settings_files(PROJECT, config_files(config))
    try:
        check_settings(PROJECT, Path(sys.executable), files)
    except StackError as error:
        fail(str(error))
    for name in SERVICES:
        source = files.get(name, "no file, only defaults and the environment")
        console().print(f"{name}: the settings are valid ({source})", markup=False, highlight=False, soft_wrap=True)
