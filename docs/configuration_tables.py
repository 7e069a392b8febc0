"""Writes `docs/configuration.md` from the settings models: `python -m docs.configuration_tables`."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.settings import GatewaySettings
from torchless.cli.bentos import BENTOS
from torchless.clients.settings import ClientSettings
from torchless.settings import ProgramSettings
from torchless.settings.check import settings_of

TARGET = Path(__file__).parent / "configuration.md"


PROGRAMS: tuple[tuple[str, type[ProgramSettings], str], ...] = (
    ("The gateway", GatewaySettings, "configs/gateway.yaml"),
    *(
        (f"The {bento.label} service", settings_of(f"bentos.{bento.name}.settings"), f"configs/{bento.name}.yaml")
        for bento in sorted(BENTOS, key=lambda bento: bento.port)
    ),
)
"""Title, settings and file of each program."""
_HEAD = """# Configuration

Written by `make docs` from the settings models; do not edit.

Each program reads its defaults, then the YAML file that `<PREFIX>CONFIG` names, then environment variables over both.
A variable is the prefix and the name in capitals, with `__` for each dot: `batching.max_items` of the embedding
service is `TORCHLESS_EMBEDDING_BATCHING__MAX_ITEMS`. Write lists and tables as JSON. Unknown names are refused.
"""
_GATEWAY = (
    (
        "Set first",
        "Where the services are, who may call, how large requests may be, names of models, and the cache.",
        r"\w+\.address|(auth|limits|models|cache)\..*",
    ),
    ("Operation and APIs", "", r"(?!clients)(\w+|(openai|tei|health|reload|log)\..*)"),
    (
        "Clients",
        "These are the defaults for every service behind the gateway. The group of each service"
        " takes the same names and overrides them for that service: `clients.retry.attempts` is for all services,"
        " `gpu.retry.attempts` for the GPU service alone.",
        r"clients\..*",
    ),
    (
        "Single services",
        "Settings that each service has on its own: `clients` does not change them.",
        r".*",
    ),
)
"""The gateway's tables: title, introduction and a pattern of setting names; a setting is in the first that fits."""
_TABLE = "| setting | type | default | what |\n|---|---|---|---|"
_BOUNDS: tuple[tuple[type, str, str], ...] = ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))


def document() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, settings, file in PROGRAMS:
        parts.append(f"## {title}\n\nPrefix `{settings.env_prefix}`, values in `{file}`.\n")
        rows = dict(_rows(settings))
        for heading, introduction, pattern in _GATEWAY if settings is GatewaySettings else (("", "", r".*"),):
            names = [name for name in rows if re.fullmatch(pattern, name)]
            parts.extend(f"{text}\n" for text in (heading and f"### {heading}", introduction) if text)
            parts.extend((_TABLE, *(rows.pop(name) for name in names), ""))
    return "\n".join(parts)


def _rows(model: type[BaseModel], prefix: str = "", only: Container[str] | None = None) -> Iterator[tuple[str, str]]:
    """The row of each setting by its name; only the names in `only`, if given."""
    for name, field in model.model_fields.items():
        if only is not None and name not in only:
            continue
        group, is_list = _group_of(field.annotation)
        if group is not None and not is_list:
            own = None
            if issubclass(group, ClientSettings) and "clients" in model.model_fields:
                own = group.own_settings()
            yield from _rows(group, f"{prefix}{name}.", own)
            continue
        default = "one entry, below" if is_list else _default(field)
        what = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"{prefix}{name}", f"| `{prefix}{name}` | {_type(field)} | {default} | {what} |"
        if group is not None:
            yield from _rows(group, f"{prefix}{name}[].")


def _group_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The group of settings that a field holds, and whether it holds several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    inner = [a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
    return (inner[0], True) if inner else (None, False)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return "none" if value is None else f"`{json.dumps(value, default=_plain)}`"


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else list(value)


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {_plain_number(getattr(rule, name))}"
        for rule in field.metadata
        for kind, name, sign in _BOUNDS
        if isinstance(rule, kind)
    ]
    return ", ".join([_type_name(field.annotation), *bounds])


def _plain_number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if isinstance(annotation, UnionType):
        return " or ".join(_type_name(each) for each in get_args(annotation) if each is not type(None))
    if get_origin(annotation) is tuple:
        return "list"
    if get_origin(annotation) is dict:
        return "table"
    names = {str: "text", SecretStr: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


if __name__ == "__main__":
    TARGET.write_text(document())
