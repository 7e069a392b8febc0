"""Tells one content of the settings' file from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLANK = "blank"
"""Fingerprint of a file with nothing in it."""


def fingerprint(path: Path) -> str:
    """The SHA-256 of what the file at `path` holds now, `BLANK`, or why it cannot be read.

    The content itself is compared: a file can be replaced by one of the same size, time and inode number, and one that
    was only touched says nothing new. Links are followed each time, because Kubernetes swaps the one that leads to a
    ConfigMap's files.
    """
    if path.exists() and not path.is_file():
        return "NotAFile"  # reading a pipe would never end
    try:
        content = path.read_bytes()
    except OSError as error:
        return type(error).__name__
    return hashlib.sha256(content).hexdigest() if content.strip() else BLANK
