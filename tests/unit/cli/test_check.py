"""`torchless check`, and the same check before `torchless up`, with the real settings of the services."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from torchless.cli.check import settings_files
from torchless.cli.main import app
from torchless.cli.options import PROJECT, SERVICES

run = CliRunner().invoke


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that name two settings files, with four faults together."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("models:\n  - id: a/b\n    devise: cpu\nbatching:\n  max_items: none\n")
    Path("gateway.yaml").write_text("limits:\n  itmes: 5\nworkers: 0\n")
    return ["--config", "embedding=mine.yaml", "--config", "gateway=gateway.yaml"]


FAULTS = """\
gateway.yaml, line 2: limits.itmes is not a setting; did you mean limits.items?
gateway.yaml, line 3: workers should be greater than or equal to 1
mine.yaml, line 3: models.0.devise is not a setting; did you mean models.0.device?
mine.yaml, line 5: batching.max_items should be a valid integer, unable to parse string as an integer
"""


def test_check_prints_one_sentence_for_each_fault_of_all_services(wrong: list[str]) -> None:
    shown = run(app, ["check", *wrong])

    assert shown.exit_code == 1
    assert sorted(shown.stderr.splitlines()) == sorted(FAULTS.splitlines())
    assert shown.stdout == ""


def test_up_prints_the_same_and_starts_nothing(wrong: list[str], tmp_path: Path) -> None:
    shown = run(app, ["up", *wrong, "--state", str(tmp_path / "state")])

    assert shown.exit_code == 1
    assert sorted(shown.stderr.splitlines()) == sorted(FAULTS.splitlines())
    assert not (tmp_path / "state").exists()


def test_check_accepts_the_shipped_files_and_names_them() -> None:
    shown = run(app, ["check"])

    assert shown.exit_code == 0, shown.output
    for name in SERVICES:
        assert f"{name}: the settings are valid ({PROJECT / 'configs' / name}.yaml)" in shown.stdout


def test_settings_files_are_chosen_by_option_then_variable_then_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHLESS_EMBEDDING_CONFIG", "by-variable.yaml")
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", "by-variable.yaml")
    monkeypatch.setenv("TORCHLESS_RERANKING_CONFIG", "")

    files = settings_files(PROJECT, {"gateway": Path("by-option.yaml")})

    assert files == {
        "gateway": tmp_path / "by-option.yaml",
        "embedding": tmp_path / "by-variable.yaml",
        "gpu": PROJECT / "configs/gpu.yaml",
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("gatway=x.yaml", "did you mean gateway?"),
        ("gateway", "must be written as NAME=VALUE"),
        ("gateway=missing.yaml", "the settings file of gateway does not exist: missing.yaml"),
    ],
)
def test_a_wrong_config_option_is_explained(option: str, message: str) -> None:
    shown = run(app, ["check", "--config", option])

    assert shown.exit_code == 2
    assert message in shown.stderr
