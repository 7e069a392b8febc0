"""The progress bar of commands with long input."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress

PROGRAM = """
from torchless.cli.progress import progress
with progress("texts", 600) as advance:
    advance(256)
    advance(344)
print("done")
"""


def test_progress_is_shown_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    printed, _ = process.communicate(timeout=20)
    assert b"texts" in shown
    assert b"600/600" in shown
    assert printed == b"done\n"


def test_progress_is_not_shown_elsewhere() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=20, check=True)
    assert (done.stdout, done.stderr) == (b"done\n", b"")
