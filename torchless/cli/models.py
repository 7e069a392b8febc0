"""`torchless models`: the models that the gateway serves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_REVISION_SHOWN = 12
"""Characters of a revision in the table; --json has all of it."""


def print_table(models: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Prints one row per model or alias."""
    table = Table("model", "does", "alias of", "revision")
    for model in models:
        alias_of = "" if model["root"] == model["id"] else model["root"]
        revisions = (f"{name} {revision[:_REVISION_SHOWN]}" for name, revision in model["revisions"].items())
        cells = (model["id"], ", ".join(model["capabilities"]), alias_of, ", ".join(revisions))
        table.add_row(*map(escape, cells))
    console.print(table)


def print_json(models: Sequence[Mapping[str, Any]]) -> None:
    """Prints one JSON object per line, as `GET /v1/models` has it."""
    for model in models:
        print(json.dumps(model, ensure_ascii=False))
