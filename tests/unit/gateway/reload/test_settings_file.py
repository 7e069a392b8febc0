"""The settings file: its fingerprint, and the errors about a file that cannot be used."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from gateway.reload.reloader import BLANK, fingerprint, watched_folders
from gateway.settings import GatewaySettings
from torchless.settings import SettingsError

SECRET = "a-key-that-is-secret"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the gateway reads; there is nothing at its path yet."""
    path = tmp_path / "gateway.yaml"
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(path))
    return path


def refused() -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load()
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert SECRET not in str(caught.value.faults)
    return caught.value


def test_fingerprint_changes_though_size_and_time_are_the_same(file: Path) -> None:
    file.write_text("limits: {items: 3}")
    before, times = fingerprint(file), file.stat()
    file.write_text("limits: {items: 4}")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(file) != before


def test_fingerprint_stays_when_the_file_is_touched_or_replaced_by_an_equal_one(file: Path, tmp_path: Path) -> None:
    file.write_text("limits: {items: 3}")
    before = fingerprint(file)
    os.utime(file, (1, 1))
    assert fingerprint(file) == before
    (tmp_path / "other").write_text("limits: {items: 3}")
    (tmp_path / "other").replace(file)
    assert fingerprint(file) == before


def test_fingerprint_changes_when_a_link_on_the_way_is_swapped(file: Path, tmp_path: Path) -> None:
    # As Kubernetes has it: gateway.yaml -> ..data/gateway.yaml, and ..data -> a folder a version.
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "gateway.yaml").write_text(f"limits: {{items: {version}}}")
    (tmp_path / "..data").symlink_to("1")
    file.symlink_to("..data/gateway.yaml")
    before = fingerprint(file)
    assert watched_folders(file) == {tmp_path, tmp_path / "1"}
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").replace(tmp_path / "..data")
    assert fingerprint(file) != before
    assert watched_folders(file) == {tmp_path, tmp_path / "2"}


def test_watched_folders_of_a_missing_folder_and_of_a_loop_of_links_exist(tmp_path: Path) -> None:
    assert watched_folders(tmp_path / "a" / "b" / "gateway.yaml") == {tmp_path}
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    assert watched_folders(tmp_path / "loop") == {tmp_path}


def test_fingerprints_of_a_missing_and_of_an_empty_file_differ(file: Path) -> None:
    gone = fingerprint(file)
    file.write_text(" \n")
    assert fingerprint(file) == BLANK
    file.write_text("# the defaults")
    assert len({gone, BLANK, fingerprint(file)}) == 3


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (f"auth:\n  api_keys: [{SECRET}\n", "the file is not YAML: line 3, column 1"),
        (f"auth:\n  api_keys: *{SECRET}\n", "the file is not YAML: line 2, column 13"),
        (f"auth:\n  api_keys: [!{SECRET} 3]\n", "the file is not YAML: line 2, column 14"),
        (f"a: {SECRET}\n---\n", "the file is not YAML: line 2, column 1"),
        (f"a: 2026-13-01\nb: {SECRET}", "the file is not YAML"),
        ("[" * 5000, "the file is not YAML"),
        (f"{SECRET}\0", "the file is not YAML"),
        (SECRET, "the file is not a mapping of setting names to values"),
        (f"- {SECRET}", "the file is not a mapping of setting names to values"),
        (f"1: {SECRET}", "the file is not a mapping of setting names to values"),
    ],
)
def test_a_file_that_is_not_a_yaml_table_is_refused(file: Path, content: str, fault: str) -> None:
    file.write_text(content)
    error = refused()
    assert error.faults == (fault,)
    what, _, place = fault.partition(": ")
    assert str(error) == f"{', '.join(filter(None, (str(file), place)))}: {what}"


def test_a_file_that_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\x80\x81")
    assert refused().faults == ("the file is not YAML",)


def test_a_missing_file_is_refused(file: Path) -> None:
    error = refused()
    assert error.faults == ("the file does not exist",)
    assert str(error) == f"TORCHLESS_GATEWAY_CONFIG names a file that does not exist: {file}"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (f"limits: {{items: {SECRET}}}", "limits.items: Input should be a valid integer"),
        (f"auth: {{api_keys: [{SECRET}, short]}}", "auth.api_keys: Value error, a key must have at least 8 characters"),
        (f"auth: {{api_keys: {SECRET}}}", "auth.api_keys: Input should be a valid"),
        # What is further in than the settings' own names may be anything.
        (f"auth: {{{SECRET}: 1}}", "auth: Extra inputs are not permitted"),
        (f"models: {{aliases: {{{SECRET}: 1}}}}", "models.aliases: Input should be a valid string"),
    ],
)
def test_public_faults_name_settings_and_no_values(file: Path, content: str, fault: str) -> None:
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load()
    assert [each.startswith(fault) for each in caught.value.faults] == [True]
    assert SECRET not in str(caught.value.faults)


def test_fingerprint_does_not_read_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "gateway.yaml"
    os.mkfifo(pipe)
    assert fingerprint(pipe) == "NotAFile"
