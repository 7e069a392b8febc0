"""Finds the part of a long text that decides which of its tokens truncation keeps.

Tokenizing all of a text of many megabytes takes seconds and gigabytes, only to drop nearly every token.

A tokenizer first normalizes a text, then splits it into words, then splits each word by itself into tokens. Where
normalization and the split into words look only at neighbouring characters, a cut changes no word but those next to it.
So the kept tokens of a part are those of the whole text, as long as several whole words lie between them and the cut.
Words that an added token next to the cut may have joined, such as the halves of `[SEP]`, do not count. A tokenizer that
is not known to work like that gets the whole text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from bentos.models.tokens import Side, TextTooLongError

_CHARACTERS_PER_TOKEN = 8
"""More than the average of most texts, so that the first part is nearly always long enough."""
_MAX_CHARACTERS = 1_000_000
"""Longest text that is tokenized as a whole: about a second of work, and a few hundred MB."""
_WORDS_NEXT_TO_CUT = 3
"""Whole words that must lie between the kept tokens and the cut. A cut changes at most two: `don't` may be split
otherwise when a text begins with `'t`."""
_ENDLESS_WORD = re.compile(r"([A-Za-z0-9]{1000})[A-Za-z0-9]+")
_ENDLESS_SPACE = re.compile(r"\s{1000,}")
_SLICE_CHARACTERS = 1_000_000
"""Characters that are searched at a time, because a search holds up the other threads."""
_LOCAL_NORMALIZERS = frozenset(
    {
        "BertNormalizer",
        "Lowercase",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "Prepend",
        "Strip",
        "StripAccents",
    }
)
_LOCAL_SPLITS = frozenset(
    {"BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit"}
)


class LongTexts:
    """Shortens long texts before they are tokenized.

    Args:
        tokenizer: The tokenizer, without truncation.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = list(tokenizer.get_added_tokens_decoder().values())
        described = json.loads(tokenizer.to_str())
        self._is_local = is_local(described)
        self._shortens_words = _reads_no_endless_word(described)
        self._longest_added = max((len(token.content) for token in added), default=0)

    def part(self, text: str, tokens: int, side: Side) -> str:
        """The beginning of `text`, or its end, that decides its first or last `tokens` tokens.

        If it is not all of the text, it has more tokens than that.

        Args:
            text: The text.
            tokens: Number of tokens that truncation keeps at most.
            side: The end of the text at which truncation drops tokens.

        Raises:
            TextTooLongError: The text is very long, and no part of it is known to decide.
        """
        characters = _CHARACTERS_PER_TOKEN * tokens + self._longest_added
        most = max(_MAX_CHARACTERS, min(4 * characters, 4 * _MAX_CHARACTERS))
        found = self._search(text, tokens, side, characters, most)
        if len(found) > most and self._is_local and self._shortens_words:
            found = self._search(_without_endless_words(text), tokens, side, characters, most)
        if len(found) > most:
            raise TextTooLongError(text, most)
        return found

    def _search(self, text: str, tokens: int, side: Side, characters: int, most: int) -> str:
        """The first of ever larger parts that decides; all of the text, if none does."""
        while self._is_local and characters < min(len(text), most):
            part = text[:characters] if side == "right" else text[-characters:]
            if self._decides(part, tokens, side):
                return part
            characters *= 4
        return text

    def _decides(self, part: str, tokens: int, side: Side) -> bool:
        """Whether several words lie between the kept tokens of `part` and the end at which it was cut."""
        encoding = self._tokenizer.encode(part, add_special_tokens=False)
        pieces = list(zip(encoding.word_ids, encoding.offsets, strict=True))
        if side == "left":
            pieces.reverse()
        dropped = pieces[tokens:]
        if not dropped:
            return False
        last_kept, _ = pieces[tokens - 1]
        first, last = self._longest_added if side == "left" else 0, len(part)
        last -= self._longest_added if side == "right" else 0
        words = {
            word for word, (start, stop) in dropped if first <= start and stop <= last and part[start:stop].strip()
        }
        return len(words - {last_kept}) >= _WORDS_NEXT_TO_CUT


def _reads_no_endless_word(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a word of a thousand letters is one unknown token however it goes on, and spaces are none."""
    longest = tokenizer["model"].get("max_input_chars_per_word", math.inf)
    splits = [step.get("type") for step in _steps(tokenizer.get("pre_tokenizer"))]
    return longest < 1000 and splits == ["BertPreTokenizer"]


def _without_endless_words(text: str) -> str:
    """The text with its words of more than 1,000 letters shortened to that, and such rows of spaces to one."""
    slices = (text[start : start + _SLICE_CHARACTERS] for start in range(0, len(text), _SLICE_CHARACTERS))
    return "".join(_ENDLESS_WORD.sub(r"\1", _ENDLESS_SPACE.sub(" ", each)) for each in slices)


def is_local(tokenizer: Mapping[str, Any]) -> bool:
    """Whether the words of a text depend only on neighbouring characters.

    Args:
        tokenizer: The tokenizer as JSON.
    """
    normalizers, splits = _steps(tokenizer.get("normalizer")), _steps(tokenizer.get("pre_tokenizer"))
    # Added tokens are found before normalization or after it. After it, the found text may have been of any length.
    found_after = any(token.get("normalized") for token in tokenizer.get("added_tokens", ()))
    return (
        all(map(_normalizes_locally, normalizers))
        and all(step.get("type") in _LOCAL_SPLITS for step in splits)
        and not (found_after and normalizers)
    )


def _steps(step: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    """The steps of a sequence, or the one step, or none."""
    if step is None:
        return []
    if step.get("type") != "Sequence":
        return [step]
    parts: Iterable[Mapping[str, Any]] = step.get("normalizers") or step.get("pretokenizers") or ()
    return [inner for part in parts for inner in _steps(part)]


def _normalizes_locally(step: Mapping[str, Any]) -> bool:
    if step.get("type") != "Replace":
        return step.get("type") in _LOCAL_NORMALIZERS
    pattern = step.get("pattern", {})
    # Several spaces become one in the tokenizers of multilingual models.
    return "String" in pattern or pattern.get("Regex") == " {2,}"
