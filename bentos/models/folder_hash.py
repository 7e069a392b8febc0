"""Hashes the files of a model in threads, while the model is loaded from them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from torchless.settings import SettingsError

_THREADS = 4
"""Parts of files that are hashed at once. hashlib releases the GIL."""
_PART_BYTES = 64 * 2**20
_READ_BYTES = 2**20
_OTHER_FORMATS = frozenset({".onnx", ".h5", ".msgpack", ".ot", ".gguf", ".tflite", ".pyc", ".md"})
_OTHER_FOLDERS = ("onnx", "openvino", "checkpoint-", "__pycache__", ".")
"""Beginnings of the names of folders that hold other formats, states of training, or nothing of the model."""


class _Stamp(NamedTuple):
    """What changes when a file is replaced or written to."""

    inode: int
    size: int
    modified_ns: int


class FolderHash:
    """The hash of the names and contents of the files in a folder; starts at once.

    A file that it does not know counts: a hash that differs without need only empties a cache. Left out are weights in
    formats that are not loaded, hidden files, and Markdown.

    Args:
        folder: The folder of the model.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamps = self._stamp()
        threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="hash")
        self._parts = [
            (name, threads.submit(_sha256, folder / name, start))
            for name, stamp in self._stamps.items()
            for start in range(0, max(1, stamp.size), _PART_BYTES)
        ]
        threads.shutdown(wait=False)

    def result(self) -> str:
        """The hash, once all files are read.

        Raises:
            SettingsError: The files changed meanwhile, so that it is not known which of them were loaded.
            OSError: A file cannot be read.
        """
        wait([digest for _, digest in self._parts])
        if self._stamp() != self._stamps:
            raise SettingsError("the files of the model changed while it was loaded; start the service again")
        whole = hashlib.sha256()
        for name, digest in self._parts:
            whole.update(f"{digest.result()} {name}\n".encode())
        return whole.hexdigest()

    def _stamp(self) -> dict[str, _Stamp]:
        stamps = {}
        for path in _files(self._folder):
            status = path.stat()
            stamp = _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
            stamps[path.relative_to(self._folder).as_posix()] = stamp
        return dict(sorted(stamps.items()))


def _files(folder: Path) -> Iterator[Path]:
    """The files that may decide what the model computes."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(_OTHER_FOLDERS)]
        # Where there are both formats, safetensors is the one that is loaded.
        has_safetensors = any(name.startswith("model") and name.endswith(".safetensors") for name in names)
        for name in names:
            is_other_weights = has_safetensors and name.startswith("pytorch_model")
            path = Path(place, name)
            is_hidden = name.startswith(".")
            if not (is_other_weights or is_hidden or path.suffix in _OTHER_FORMATS) and path.is_file():
                yield path


def _sha256(path: Path, start: int) -> str:
    """The SHA-256 of one part of a file."""
    digest, left = hashlib.sha256(), _PART_BYTES
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (block := file.read(min(left, _READ_BYTES))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
