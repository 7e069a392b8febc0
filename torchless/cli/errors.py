"""What the command can say when it cannot do its work."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot be started, or does not stay up; the message is for the user and says what to change."""
