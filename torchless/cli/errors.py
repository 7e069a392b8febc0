"""Errors of the `torchless` command."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot start or does not stay up; the message tells the user what to change."""
