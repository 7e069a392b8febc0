"""The documentation says what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.configuration_tables import PROGRAMS, TARGET, document
from torchless.settings import ProgramSettings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")), *ROOT.glob("bentos/*/*.md")]


def test_the_configuration_page_is_what_the_settings_give() -> None:
    assert TARGET.read_text() == document(), "run `make docs`"


@pytest.mark.parametrize(("title", "settings", "file"), PROGRAMS)
def test_the_shipped_configuration_is_the_default_one(
    title: str, settings: type[ProgramSettings], file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = settings.load()
    monkeypatch.setenv(f"{settings.env_prefix}CONFIG", str(ROOT / file))
    assert settings.load() == plain, title


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_folder_that_the_readme_names_is_there() -> None:
    named = re.findall(r"^\| `([\w/]+)/` \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).is_dir()] == []


def test_every_setting_says_what_it_is() -> None:
    bare = [line for line in document().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert bare == []
