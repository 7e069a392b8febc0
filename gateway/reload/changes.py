"""What differs between settings, and what of it can be applied while the gateway runs."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.settings import GatewaySettings
from torchless.settings import ProgramSettings, SettingsGroup


def changed(before: SettingsGroup | ProgramSettings, after: SettingsGroup | ProgramSettings) -> list[str]:
    """Names of the settings whose values differ, as `limits.items`, in the order in which they are declared.

    Names alone, because values may be keys.
    """
    names = []
    for name in type(after).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if isinstance(old, SettingsGroup) and isinstance(new, SettingsGroup):
            names += [f"{name}.{inner}" for inner in changed(old, new)]
        else:
            names.append(name)
    return names


def reloadable_part(wanted: GatewaySettings, started: GatewaySettings) -> GatewaySettings:
    """`wanted`, but for what stays as it was when the worker started.

    BentoML makes `workers` before there is one. Its own deadline is that of the start, so `limits.max_deadline_s` may
    shrink below that of the start, and grow up to it: past it, BentoML would answer first, and not in the API's form.
    """
    longest_s = min(wanted.limits.max_deadline_s, started.limits.max_deadline_s)
    limits = wanted.limits.model_copy(update={"max_deadline_s": longest_s})
    return wanted.model_copy(update={"workers": started.workers, "limits": limits})


def connection_settings(names: Iterable[str]) -> list[str]:
    """Those of `names` that a connection is made with, so that one that is open keeps what it has."""
    return [name for name in names if ".connection." in name]
