"""Errors of the `torchless` command."""

from __future__ import annotations

from collections.abc import Sequence


class StackError(Exception):
    """The stack cannot start or does not stay up; the message tells the user what to change."""


class SettingsFaultsError(StackError):
    """Settings cannot be used; the message has one sentence for each fault.

    Args:
        faults: The sentences.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)
