"""Texts and pairs of texts to token ids, with what is too long cut or read in windows. Knows no torch."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from bentos.models.tokenizer import bare_tokenizer
from bentos.reranking.model import LongDocuments
from torchless.settings import SettingsError

_CHARACTERS_OF_A_TOKEN = 8
"""More than a token has in most texts: where a text is cut before it is tokenized, first."""
_MARGIN = 128
"""Tokens past those that are kept, so that a word that was cut in two is not among them: WordPiece reads none of more
than 100 characters."""
_SLICE_CHARACTERS = 1_000_000
"""Characters that are tokenized at a time: what the tokenizer holds of them takes many times as much."""

Input = str | tuple[str, str]
"""A text, or a query and a document that are read together."""


class Window(NamedTuple):
    """What the model reads at once of an input."""

    ids: list[int]
    """Token ids, special tokens included."""
    type_ids: list[int]
    """Which of two joined texts each belongs to."""


class TruncatingTokenizer:
    """A model's tokenizer, in one copy for each way with what is too long, because that is a state of the copy.

    Pairs are cut as sentence-transformers' `CrossEncoder` does, from the longer of the two; in windows it is the
    document alone that is split.

    Args:
        serialized: The tokenizer as JSON.
        max_tokens: Length to which inputs are cut, special tokens included.
        overlap_tokens: Tokens that a window has in common with the one before it; None: an eighth of `max_tokens`.
        pairs: Whether inputs are pairs.

    Raises:
        SettingsError: Windows would have nothing of their own.
    """

    def __init__(self, serialized: str, max_tokens: int, overlap_tokens: int | None, *, pairs: bool) -> None:
        self._max_tokens = max_tokens
        self._whole = bare_tokenizer(serialized)
        self._special_tokens = self._whole.num_special_tokens_to_add(pairs)
        longest_overlap = self.longest_query // 2
        if overlap_tokens is None:
            overlap_tokens = min(max_tokens // 8, longest_overlap)
        if overlap_tokens > longest_overlap:
            raise SettingsError(
                f"`window_overlap_tokens` is {overlap_tokens}; of {max_tokens} tokens that the model "
                f"reads, at most {longest_overlap} may overlap"
            )
        self._ways: dict[LongDocuments, Tokenizer] = {"refuse": self._whole}
        self._ways["cut"] = _cutting(serialized, max_tokens)
        self._ways["cut_start"] = _cutting(serialized, max_tokens, direction="left")
        strategy = "only_second" if pairs else "longest_first"
        self._ways["windows"] = _cutting(serialized, max_tokens, stride=overlap_tokens, strategy=strategy)

    @property
    def longest_query(self) -> int:
        """Tokens of a query in front of windows of a document: half of what the model reads, so that both have room."""
        return (self._max_tokens - self._special_tokens) // 2

    def readable(self, query: str, way: LongDocuments) -> str:
        """The query without what no document leaves room for.

        It is tokenized once more with each document, and a long one with many would be too much to hold.
        """
        if way == "windows":
            (cut,) = self.shortened([query], self.longest_query)
        else:
            # Twice what is read, so that a word at the cut, whose tokens may change, is beyond it.
            (cut,) = self.shortened([query], 2 * self._max_tokens, keep_end=way == "cut_start")
        return cut

    def no_longer_than(self, query: str, documents: Sequence[str], *, keep_end: bool = False) -> list[str]:
        """The documents, cut so that each is as much longer or shorter than a `readable` query as it is than `query`.

        A pair loses tokens from the longer of the two first, so an odd token of room belongs to that one.
        """
        asked, most = len(self._whole.encode(query, add_special_tokens=False)), 2 * self._max_tokens
        cut = []
        for text, encoding in zip(documents, self._plain(documents), strict=True):
            keeps = most - (asked > len(encoding))
            cut.append(_kept(text, encoding, keeps, keep_end=keep_end) if len(encoding) <= asked else text)
        return cut

    def encode(self, inputs: Sequence[Input], way: LongDocuments) -> list[list[Window]]:
        """For each input its windows, special tokens included: one, unless that is the way and the input is long."""
        encodings = chain.from_iterable(self._ways[way].encode_batch_fast(part) for part in _slices(inputs))
        return [_windows(e) if way == "windows" else [Window(e.ids, e.type_ids)] for e in encodings]

    def length(self, text: str) -> int:
        """Tokens of a text alone, special tokens included."""
        return len(self._whole.encode(text).ids)

    def shortened(self, texts: Sequence[str], tokens: int, *, keep_end: bool = False) -> list[str]:
        """The texts, each cut to its first (or last) `tokens` tokens, special tokens not counted.

        Of a long text no more is tokenized than it takes.
        """
        cut = list(texts)
        left = [index for index, text in enumerate(texts) if _may_exceed(text, tokens)]
        characters = _CHARACTERS_OF_A_TOKEN * (tokens + _MARGIN)
        while left:
            parts = [_part(texts[index], characters, keep_end=keep_end) for index in left]
            longer = []
            for index, part, encoding in zip(left, parts, self._plain(parts), strict=True):
                if len(part) < len(texts[index]) and len(encoding) <= tokens + _MARGIN:
                    longer.append(index)
                else:
                    cut[index] = _kept(part, encoding, tokens, keep_end=keep_end)
            left, characters = longer, 4 * characters
        return cut

    def _plain(self, texts: Sequence[str]) -> Iterator[Encoding]:
        """The texts' encodings, without special tokens, a few at a time: they take many times the texts' memory."""
        for part in _slices(texts):
            yield from self._whole.encode_batch(part, add_special_tokens=False)


def _slices(inputs: Sequence[Input]) -> Iterator[list[Input]]:
    part: list[Input] = []
    characters = 0
    for each in inputs:
        part.append(each)
        characters += len(each) if isinstance(each, str) else sum(map(len, each))
        if characters > _SLICE_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part


def _part(text: str, characters: int, *, keep_end: bool) -> str:
    return text[-characters:] if keep_end else text[:characters]


def _kept(text: str, encoding: Encoding, tokens: int, *, keep_end: bool) -> str:
    if len(encoding) <= tokens:
        return text
    return _end(text, encoding, tokens) if keep_end else _start(text, encoding, tokens)


def _windows(first: Encoding) -> list[Window]:
    whole = Window(first.ids, first.type_ids)
    return [whole, *(Window(e.ids, _types_as_in(first, len(e.ids))) for e in first.overflowing)]


def _types_as_in(first: Encoding, length: int) -> list[int]:
    """The type ids of a later window: `tokenizers` counts what it split off a second text to the first one."""
    types, texts = first.type_ids, first.sequence_ids
    split = max(text for text in texts if text is not None)
    start = texts.index(split)
    after = texts[::-1].index(split)
    return types[:start] + [types[start]] * (length - start - after) + types[len(types) - after :]


def _may_exceed(text: str, tokens: int) -> bool:
    # A token has a byte at least. A tokenizer may put one space before the text, and its normalizer makes more of a
    # compatibility character: 18 characters of U+FDFA.
    return len(text) >= tokens or len(text.encode()) >= tokens or not unicodedata.is_normalized("NFKC", text)


def _start(text: str, encoding: Encoding, tokens: int) -> str:
    """The text up to the token past the last, without a character that the two share."""
    return text[: min(encoding.offsets[tokens - 1][1], encoding.offsets[tokens][0])]


def _end(text: str, encoding: Encoding, tokens: int) -> str:
    """The text from the token before the first, without a character that the two share."""
    return text[max(encoding.offsets[-tokens][0], encoding.offsets[-tokens - 1][1]) :]


def _cutting(
    serialized: str, max_tokens: int, *, direction: str = "right", stride: int = 0, strategy: str = "longest_first"
) -> Tokenizer:
    tokenizer = bare_tokenizer(serialized)
    tokenizer.enable_truncation(max_tokens, stride=stride, strategy=strategy, direction=direction)
    return tokenizer
