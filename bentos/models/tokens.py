"""Results of tokenization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text as the model reads it."""

    ids: Sequence[int]
    """Token ids, prompt and special tokens included."""
    truncated: bool = False
    """Whether truncation dropped tokens."""


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """One token and its position in the text."""

    id: int
    text: str
    special: bool
    start: int | None
    """First character, in code points; None for special tokens."""
    stop: int | None
    """Character after the last."""


class TextTooLongError(Exception):
    """All of a text would have to be tokenized, and it is too long for that.

    Args:
        text: The text.
        most: Most characters of such a text.
    """

    def __init__(self, text: str, most: int) -> None:
        super().__init__(
            f"has {len(text)} characters, all of which must be tokenized because it has no spaces where it could be "
            f"truncated before; the maximum for such a text is {most}; shorten it"
        )
        self.text = text
