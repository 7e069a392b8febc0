"""Capabilities are in one table for each purpose, and `docs/adding-a-capability.md` names every file of one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.services import CAPABILITIES, Capability
from gateway.settings import GatewaySettings
from torchless.cli.bentos import BENTOS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-capability.md").read_text()
NEW, EXISTING = (re.findall(r"^\| `([^`]+)` \|", part, flags=re.MULTILINE) for part in PAGE.split("## Rows")[:2])
FAMILIES = "gateway/apis/families.py"
by_name = pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda capability: capability.name)


@by_name
def test_every_new_file_of_the_page_exists_for_each_capability(capability: Capability[Any]) -> None:
    files = [name.replace("<name>", capability.name) for name in NEW if "<family>" not in name]
    assert len(files) >= 9
    assert [name for name in files if not (ROOT / name).is_file()] == []


@by_name
def test_every_existing_file_of_the_page_has_a_row_of_each_capability(capability: Capability[Any]) -> None:
    word = re.compile(rf"\b{capability.name}\b", re.IGNORECASE)
    files = [name for name in EXISTING if name != FAMILIES]
    assert (len(files), len(EXISTING)) == (5, 6)
    assert [name for name in files if not word.search((ROOT / name).read_text())] == []


def test_every_api_family_has_a_row() -> None:
    folders = {path.parent.name for path in (ROOT / "gateway" / "apis").glob("*/routes.py")} - {"operation"}
    assert set(re.findall(r"gateway\.apis\.(\w+)\.", (ROOT / FAMILIES).read_text())) >= folders


@by_name
def test_the_tables_of_the_gateway_and_the_stack_agree(capability: Capability[Any]) -> None:
    (bento,) = (bento for bento in BENTOS if bento.name == capability.name)
    assert capability.settings(GatewaySettings()).address == f"127.0.0.1:{bento.port}"
    assert bento.client == f"{capability.client.__module__}:{capability.client.__name__}"
    assert capability.client.capability == capability.name


def test_every_bento_of_the_stack_is_a_capability_of_the_gateway() -> None:
    assert {bento.name for bento in BENTOS} == {capability.name for capability in CAPABILITIES}
