"""Faults that are switched while the bento runs: a small file that its device reads before every batch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from torchless.contracts.errors import ErrorKind, TorchlessError


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with a bento; by default nothing."""

    slow: float = 1.0
    """How many times as long as usual each text takes."""
    failure: ErrorKind | None = None
    """Kind of the error that every batch ends with."""

    def raise_failure(self) -> None:
        """Does nothing while there is no failure.

        Raises:
            TorchlessError: The failure.
        """
        if self.failure is not None:
            raise TorchlessError(self.failure, "the stub was told to fail")


class FaultFile:
    """The file through which a test tells a bento of its faults.

    Args:
        path: Where it is, or will be; no file means no faults.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[int, int] = (0, 0)
        self._faults = Faults()

    def write(self, faults: Faults) -> None:
        """Puts `faults` in force, all at once."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(asdict(faults)))
        new.replace(self.path)

    def read(self) -> Faults:
        """What is in force now; reads the file only when it is another one."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return Faults()
        if (stat.st_ino, stat.st_mtime_ns) != self._read:
            given = json.loads(self.path.read_text())
            failure = given["failure"]
            self._faults = Faults(given["slow"], None if failure is None else ErrorKind(failure))
            self._read = (stat.st_ino, stat.st_mtime_ns)
        return self._faults
