"""Finds changed settings, and settings that cannot change while the gateway runs."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.settings import GatewaySettings
from torchless.settings import ProgramSettings, SettingsGroup


def changed(before: SettingsGroup | ProgramSettings, after: SettingsGroup | ProgramSettings) -> list[str]:
    """Names of the settings whose values differ, such as `limits.items`, in the order of their declaration.

    It returns no values, because they may be keys. `clients` is left out: it has no effect but on the services' groups.
    """
    names = []
    for name in type(after).model_fields:
        if isinstance(after, GatewaySettings) and name == "clients":
            continue
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if isinstance(old, SettingsGroup) and isinstance(new, SettingsGroup):
            names += [f"{name}.{inner}" for inner in changed(old, new)]
        else:
            names.append(name)
    return names


def reloadable_part(wanted: GatewaySettings, started: GatewaySettings) -> GatewaySettings:
    """`wanted`, with the values of the start for what cannot change while the gateway runs.

    BentoML starts `workers` before any of them reads settings, and its supervisor keeps the form of its lines. Its own
    timeout is fixed at start, so `limits.max_deadline_s` cannot exceed its value at start: BentoML would answer first,
    and not in the API's form.
    """
    longest_s = min(wanted.limits.max_deadline_s, started.limits.max_deadline_s)
    limits = wanted.limits.model_copy(update={"max_deadline_s": longest_s})
    log = wanted.log.model_copy(update={"format": started.log.format})
    return wanted.model_copy(update={"workers": started.workers, "limits": limits, "log": log})


def connection_settings(names: Iterable[str]) -> list[str]:
    """The `names` of settings that only new connections use; open ones keep the previous values."""
    return [name for name in names if ".connection." in name or name.startswith("http.")]
