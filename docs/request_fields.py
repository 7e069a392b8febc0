"""Writes the tables of request fields in `docs/clients.md`, from each `fields.py`: `python -m docs.request_fields`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.apis.cohere.fields import FIELDS as COHERE
from gateway.apis.known_fields import KnownFields
from gateway.apis.openai.fields import FIELDS as OPENAI
from gateway.apis.rerank.fields import FIELDS as RERANK
from gateway.apis.tei.fields import FIELDS as TEI
from gateway.apis.vllm.fields import FIELDS as VLLM

FIELDS: tuple[KnownFields, ...] = (*OPENAI, *COHERE, *TEI, *RERANK, *VLLM)
"""The fields of all imitated APIs."""
TARGET = Path(__file__).parent / "clients.md"
_MARKED = re.compile(r"(<!-- request-fields:start -->\n).*(<!-- request-fields:end -->\n)", re.DOTALL)
_HEAD = "| API | obeyed | refused | harmless |\n|---|---|---|---|\n"


def page() -> str:
    """`docs/clients.md` with the tables of the current fields."""
    tables = "\n".join(_table(paths) for paths in dict.fromkeys(each.paths for each in FIELDS))
    text, replaced = _MARKED.subn(lambda found: found[1] + tables + found[2], TARGET.read_text())
    if replaced != 1:
        raise ValueError(f"{TARGET.name} must contain the markers of the request fields once")
    return text


def _table(paths: Sequence[str]) -> str:
    of_route = [each for each in FIELDS if each.paths == paths]
    title = ", ".join(f"`{path}`" for path in paths)
    rows = (_row(api, [each for each in of_route if each.api == api]) for api in dict.fromkeys(e.api for e in of_route))
    return f"{title}:\n\n{_HEAD}{''.join(rows)}"


def _row(api: str, known: Sequence[KnownFields]) -> str:
    obeyed, refused, harmless = (
        {name: value for each in known for name, value in getattr(each, kind).items()}
        for kind in ("obeyed", "refused", "harmless")
    )
    return f"| {api} | {_names(obeyed)} | {_examples(refused)} | {_names(harmless)} |\n"


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in fields) or "-"


def _examples(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}: {json.dumps(value)}`" for name, value in fields.items()) or "-"


if __name__ == "__main__":
    TARGET.write_text(page())
