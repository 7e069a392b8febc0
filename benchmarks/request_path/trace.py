"""Records the files that run, in the order of the calls into them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self


class Trace:
    """Records every call into Python code below some folders, in the current thread, while the context lasts.

    A coroutine or generator that continues counts as a call too: the reader has to go back to its file.

    Args:
        root: The checkout.
        folders: Folders of the checkout whose files are recorded.
    """

    def __init__(self, root: Path, folders: Sequence[str] = ("gateway", "torchless")) -> None:
        self._root = root.resolve()
        self._folders = folders
        self._known: dict[str, str] = {}
        self.calls: list[str] = []
        """The file of each call, relative to the checkout."""

    def __enter__(self) -> Self:
        sys.setprofile(self._on_event)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            name = frame.f_code.co_filename
            if (file := self._known.get(name)) is None:
                file = self._known[name] = self._relative(name)
            if file:
                self.calls.append(file)

    def _relative(self, name: str) -> str:
        """The path below the checkout; empty if the file is not in one of the folders."""
        path = Path(name)
        if not path.is_relative_to(self._root):
            return ""
        relative = path.relative_to(self._root)
        return str(relative) if relative.parts[0] in self._folders else ""

    @property
    def files(self) -> Counter[str]:
        """Calls into each file."""
        return Counter(self.calls)

    @property
    def stops(self) -> list[str]:
        """The file of each call, without repeats in a row."""
        return self.calls[:1] + [after for before, after in pairwise(self.calls) if after != before]

    @property
    def moves(self) -> int:
        """How often a call went to another file than the call before it."""
        return max(0, len(self.stops) - 1)
