"""Checks the settings of programs without starting them: `python -m torchless.settings.check MODULE...`.

Each module defines one class of `ProgramSettings`. They are read as the programs would read them, from their files and
this process's environment. Prints one sentence for each fault, and exits with 1 if there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

from torchless.settings.base import ProgramSettings, SettingsError


def settings_of(module: str) -> type[ProgramSettings]:
    """The class of settings that a module defines, for example `bentos.gpu.settings`."""
    found = import_module(module)
    (settings,) = (
        each
        for each in vars(found).values()
        if isinstance(each, type) and issubclass(each, ProgramSettings) and each.__module__ == module
    )
    return settings


def faults(settings: type[ProgramSettings]) -> Iterator[str]:
    """A sentence for each fault in the settings of one program."""
    try:
        settings.load()
    except SettingsError as error:
        yield from str(error).splitlines()
    yield from settings.origins().misspelt_variables()


def main(modules: Sequence[str]) -> int:
    """Prints the faults of all programs; returns the exit status."""
    found = [fault for module in modules for fault in faults(settings_of(module))]
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
