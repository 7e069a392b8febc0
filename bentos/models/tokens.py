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
    dropped: int = 0
    """Tokens that truncation dropped."""


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
