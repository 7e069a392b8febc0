"""What changes the hash of a model's folder, and what does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bentos.models import folder_hash
from bentos.models.folder_hash import FolderHash
from torchless.settings import SettingsError

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"words",
    "1_Pooling/config.json": b"mean",
    "modeling.py": b"code",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        _write(tmp_path / "model" / name, content)
    return tmp_path / "model"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _hash(folder: Path) -> str:
    return FolderHash(folder).result()


def test_copies_have_the_same_hash_wherever_they_are(folder: Path, tmp_path: Path) -> None:
    for name, content in reversed(FILES.items()):
        _write(tmp_path / "copy" / name, content)
    assert _hash(folder) == _hash(tmp_path / "copy") == _hash(folder)


@pytest.mark.parametrize("position", [0, 2, 3, 6])
def test_every_part_of_a_large_file_counts(folder: Path, monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    monkeypatch.setattr(folder_hash, "_PART_BYTES", 3)  # "wei", "ght", "s"
    monkeypatch.setattr(folder_hash, "_READ_BYTES", 2)
    before, content = _hash(folder), bytearray(FILES["model.safetensors"])
    content[position] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert _hash(folder) != before


@pytest.mark.parametrize("name", FILES)
def test_other_content_of_the_same_size_and_age_changes_the_hash(folder: Path, name: str) -> None:
    before, status = _hash(folder), (folder / name).stat()
    (folder / name).write_bytes(FILES[name][::-1].swapcase())
    os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert _hash(folder) != before


def _rename(folder: Path) -> None:
    (folder / "1_Pooling").rename(folder / "2_Pooling")


def _remove(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _move_bytes(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"{")
    (folder / "tokenizer.json").write_bytes(b"}words")


@pytest.mark.parametrize("change", [_rename, _remove, _move_bytes])
def test_renamed_and_missing_files_and_moved_bytes_change_the_hash(
    folder: Path, change: Callable[[Path], None]
) -> None:
    before = _hash(folder)
    change(folder)
    assert _hash(folder) != before


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "2_Dense/pytorch_model.bin", "unknown.dat", "model-2.safetensors"]
)
def test_added_file_that_may_be_loaded_changes_the_hash(folder: Path, name: str) -> None:
    before = _hash(folder)
    _write(folder / name, b"more")
    assert _hash(folder) != before


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        ".gitattributes",
        ".git/HEAD",
        "onnx/model.onnx",
        "openvino/openvino_model.bin",
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "checkpoint-500/model.safetensors",
        "__pycache__/modeling.cpython-311.pyc",
    ],
)
def test_files_that_are_never_loaded_do_not_count(folder: Path, name: str) -> None:
    before = _hash(folder)
    _write(folder / name, b"more")
    assert _hash(folder) == before


def test_pytorch_weights_count_where_there_are_no_others(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    before = _hash(folder)
    (folder / "pytorch_model.bin").write_bytes(b"other")
    assert _hash(folder) != before


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for entry in folder.iterdir():
        (linked / entry.name).symlink_to(entry)
    assert _hash(linked) == _hash(folder)
    (linked / "dangling.json").symlink_to(tmp_path / "nowhere")
    assert _hash(linked) == _hash(folder)


def _overwrite(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")


def _replace(folder: Path) -> None:
    _write(folder / "new", b"weights")
    (folder / "new").replace(folder / "model.safetensors")


def _add(folder: Path) -> None:
    _write(folder / "added.json", b"{}")


@pytest.mark.parametrize("change", [_overwrite, _replace, _add, _remove])
def test_files_that_change_meanwhile_are_refused(folder: Path, change: Callable[[Path], None]) -> None:
    os.utime(folder / "model.safetensors", ns=(1, 1))  # the clock may be coarse
    hashing = FolderHash(folder)
    change(folder)
    with pytest.raises(SettingsError, match="changed while it was loaded"):
        hashing.result()
