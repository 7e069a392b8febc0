"""Reads the settings of every service before one starts, and says what is wrong with them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from torchless.cli.bentos import BENTOS, GATEWAY, variable_prefix
from torchless.cli.errors import SettingsFaultsError, StackError

CHECK_WITHIN_S = 30.0


def settings_files(project: Path, given: Mapping[str, Path]) -> dict[str, Path]:
    """The settings file of each service that has one, by the service's name, as absolute paths.

    Args:
        project: The checkout, with `configs/`.
        given: Files that the user chose. For other services the file is named by `TORCHLESS_<NAME>_CONFIG` in the
            environment; without it, it is `configs/<name>.yaml`. An empty variable means no file.
    """
    files = {}
    for name in (GATEWAY, *(bento.name for bento in BENTOS)):
        shipped = project / "configs" / f"{name}.yaml"
        variable = os.environ.get(f"{variable_prefix(name)}CONFIG")
        named = given.get(name) or (variable if variable is not None else shipped if shipped.is_file() else None)
        if named:
            files[name] = Path(named).absolute()
    return files


def check_settings(project: Path, python: Path, files: Mapping[str, Path]) -> None:
    """Checks the settings of all services: their files, and the variables over them.

    The settings models belong to the services, so another process imports them. All of them can be imported without
    torch, in the gateway's environment.

    Args:
        project: The checkout, which holds `gateway/` and `bentos/`.
        python: Python of the gateway's environment.
        files: The files, by the service's name.

    Raises:
        SettingsFaultsError: Settings cannot be used.
        StackError: They could not be checked.
    """
    modules = [f"{GATEWAY}.settings", *(f"bentos.{bento.name}.settings" for bento in BENTOS)]
    variables = {f"{variable_prefix(name)}CONFIG": str(path) for name, path in files.items()}
    paths = os.pathsep.join(filter(None, (str(project), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(  # noqa: S603  # our own Python and our own module
        [str(python), "-m", "torchless.settings.check", *modules],
        env={**os.environ, **variables, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=CHECK_WITHIN_S,
        check=False,
    )
    if done.returncode == 1 and done.stdout:
        raise SettingsFaultsError(done.stdout.splitlines())
    if done.returncode:
        reason = (done.stderr.strip() or "no reason was given").splitlines()[-1]
        raise StackError(f"the settings could not be checked: {reason}")
