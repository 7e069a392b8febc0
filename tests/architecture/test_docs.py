"""Documentation: links, index, decision records and the configuration page."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from docs import error_policy_table, headline, metrics_tables
from docs.configuration_tables import PROGRAMS, TARGET, document
from torchless.settings import ProgramSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RECORDS = sorted((DOCS / "decisions").glob("*.md"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted(ROOT.glob("bentos/*/*.md")),
]


def links(page: Path) -> list[str]:
    """The targets of the links from `page` to other files of the repository, with their anchors."""
    return re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of `page`."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_configuration_page_is_generated_from_the_settings() -> None:
    assert TARGET.read_text() == document(), "run `make docs`"


def test_error_table_is_generated_from_the_policy() -> None:
    assert error_policy_table.TARGET.read_text() == error_policy_table.page(), "run `make docs`"


def test_numbers_at_the_top_of_the_readme_are_those_of_the_last_benchmark() -> None:
    assert headline.TARGET.read_text() == headline.page(), "run `make docs`"


def test_page_of_metrics_is_generated_from_the_metrics() -> None:
    assert metrics_tables.TARGET.read_text() == metrics_tables.document(), "run `make docs`"


def test_queries_on_the_page_of_metrics_use_existing_series_and_labels() -> None:
    rows = {row.name: row for found in metrics_tables.sections().values() for row in found}
    series = {name: row for name, row in rows.items() if row.type != "histogram"}
    for name, row in rows.items():
        if row.type == "histogram":
            series |= {
                f"{name}_sum": row,
                f"{name}_count": row,
                f"{name}_bucket": row._replace(labels=(*row.labels, "le")),
            }
    queries = re.findall(r"^\| [^|`]+ \| `(.*torchless_.*)` \|$", metrics_tables.TARGET.read_text(), flags=re.MULTILINE)
    assert len(queries) >= 8
    for query in queries:
        named = re.findall(r"torchless_\w+", query)
        assert set(named) <= set(series), query
        selected = set(re.findall(r"(\w+)=", query)) | set(re.findall(r"\bby \((\w+)\)", query))
        assert selected <= {label for name in named for label in series[name].labels}, query


@pytest.mark.parametrize(("title", "settings", "file"), PROGRAMS)
def test_shipped_configuration_equals_the_defaults(
    title: str, settings: type[ProgramSettings], file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = settings.load()
    monkeypatch.setenv(f"{settings.env_prefix}CONFIG", str(ROOT / file))
    assert settings.load() == plain, title


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_existing_files_and_headings(page: Path) -> None:
    broken = []
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_and_folders_exist(page: Path) -> None:
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_is_linked_from_the_readme_or_the_index() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in (PAGES[0], DOCS / "README.md")
        for link in links(page)
    }
    assert [str(page.relative_to(ROOT)) for page in PAGES[1:] if page.resolve() not in linked] == []


def test_every_folder_that_the_readme_names_exists() -> None:
    named = re.findall(r"^\| `([\w/]+)/` \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).is_dir()] == []


def test_every_setting_has_a_description() -> None:
    bare = [line for line in document().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert bare == []


GUIDES = [
    DOCS / f"{name}.md"
    for name in ("models", "gpu", "tuning", "troubleshooting", "moving-from-tei", "moving-from-infinity")
]
"""Pages that name settings of several programs."""


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_settings_that_a_guide_names_exist(page: Path) -> None:
    known = set(re.findall(r"^\| `([\w.\[\]]+)` \|", TARGET.read_text(), flags=re.MULTILINE))
    groups = {name.rpartition(".")[0] for name in known}
    named = re.findall(r"`((?:\w+\[\]|\w+)\.[\w.]+)[:`]", page.read_text())
    settings = {name for name in named if name.partition(".")[0] in {group.partition(".")[0] for group in groups}}
    assert settings
    assert settings - known - groups == set()


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_settings_files_of_a_guide_are_valid(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_file = {Path(file).name: settings for _, settings, file in PROGRAMS}
    examples = re.findall(r"^ *```yaml\n(.*?)^ *```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for number, example in enumerate(examples):
        named = re.match(r"# configs/(\S+)\n", example.lstrip())
        name = named[1] if named else ("gateway.yaml" if "aliases" in example else "embedding.yaml")
        file = tmp_path / f"{number}.yaml"
        file.write_text(textwrap.dedent(example))
        monkeypatch.setenv(f"{by_file[name].env_prefix}CONFIG", str(file))
        by_file[name].load()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_decision_records_have_the_same_headings(record: Path) -> None:
    title, *headings = re.findall(r"^(#+ .*)$", record.read_text(), flags=re.MULTILINE)
    assert title.startswith("# ")
    required = ["## Context", "## Decision", "## Consequences"]
    assert headings[:3] == required
    assert headings[3:] == [name for name in ("## Alternatives", "## Measured") if name in headings]


def test_index_lists_every_decision_record_with_its_title() -> None:
    titles = {record.name: record.read_text().splitlines()[0].removeprefix("# ") for record in RECORDS}
    rows = re.findall(
        r"^\| \[(\d{4})\]\(decisions/(\S+)\) \| (.*) \|$", (DOCS / "README.md").read_text(), flags=re.MULTILINE
    )
    assert {name: title for _, name, title in rows} == titles
    assert [number for number, _, _ in rows] == [name[:4] for name in titles] == sorted({name[:4] for name in titles})
