"""Tokenizes texts and pairs of texts; truncates long ones or splits them into windows. Does not need torch."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from bentos.models.long_text import LongTexts
from bentos.models.tokenizer import bare_tokenizer
from bentos.models.tokens import Side
from bentos.reranking.model import LongDocuments
from torchless.settings import SettingsError

_SLICE_CHARACTERS = 1_000_000
"""Characters that are tokenized at a time, because encodings take many times the memory of their text."""

Input = str | tuple[str, str]
"""A text, or a query and a document to read together."""


class Window(NamedTuple):
    """The part of an input that the model reads at once."""

    ids: list[int]
    """Token ids, special tokens included."""
    type_ids: list[int]
    """For each token, which of two joined texts it belongs to."""


class EncodedInput(NamedTuple):
    """An input as the model reads it."""

    windows: list[Window]
    """One, unless it is read in windows."""
    query_truncated: bool = False
    """Whether tokens of the first of two texts were dropped."""
    text_truncated: bool = False
    """Whether tokens of the only text, or of the second, were dropped."""


class TruncatingTokenizer:
    """A model's tokenizer, with one copy per handling of long inputs, because truncation is a state of the tokenizer.

    Pairs are truncated as in sentence-transformers' `CrossEncoder`: from the longer of the two. Windows split only the
    document.

    Args:
        serialized: The tokenizer as JSON.
        max_tokens: Length to which inputs are truncated, special tokens included.
        overlap_tokens: Tokens that two neighbouring windows share; None: an eighth of `max_tokens`.
        pairs: Whether inputs are pairs.

    Raises:
        SettingsError: `overlap_tokens` is more than half of a window.
    """

    def __init__(self, serialized: str, max_tokens: int, overlap_tokens: int | None, *, pairs: bool) -> None:
        self._max_tokens = max_tokens
        self._whole = bare_tokenizer(serialized)
        self._long_texts = LongTexts(self._whole)
        self._special_tokens = self._whole.num_special_tokens_to_add(pairs)
        longest_overlap = self.longest_query // 2
        if overlap_tokens is None:
            overlap_tokens = min(max_tokens // 8, longest_overlap)
        if overlap_tokens > longest_overlap:
            raise SettingsError(
                f"`window_overlap_tokens` is {overlap_tokens}; the maximum is {longest_overlap} for a model that reads "
                f"{max_tokens} tokens"
            )
        strategy = "only_second" if pairs else "longest_first"
        self._tokenizers: dict[LongDocuments, Tokenizer] = {
            "refuse": self._whole,
            "cut": _truncating(serialized, max_tokens),
            "cut_start": _truncating(serialized, max_tokens, direction="left"),
            "windows": _truncating(serialized, max_tokens, stride=overlap_tokens, strategy=strategy),
        }

    @property
    def longest_query(self) -> int:
        """Most tokens of a query before windows of a document: half of the model's longest input."""
        return (self._max_tokens - self._special_tokens) // 2

    def shorten_query(self, query: str, long_documents: LongDocuments) -> str:
        """The query without the part that never fits next to a document.

        It is tokenized again with each document, so a long query with many documents would take too much memory.
        """
        if long_documents == "windows":
            (shortened,) = self.shorten([query], self.longest_query)
        else:
            # Twice the longest input, so that a word at the cut, whose tokens may change, is beyond it.
            (shortened,) = self.shorten([query], 2 * self._max_tokens, keep_end=long_documents == "cut_start")
        return shortened

    def shorten_like_query(self, query: str, documents: Sequence[str], *, keep_end: bool = False) -> list[str]:
        """Shortens documents that are shorter than `query` so that they stay shorter than the shortened query.

        A pair is truncated from the longer of the two first, and the longer one keeps an odd token.
        """
        longest = max((len(encoding) for encoding in self._plain(documents)), default=0)
        # More tokens of the query make no difference.
        part = self._long_texts.part(query, longest + 1, "right")
        query_tokens, most = self._plain_length(part), 2 * self._max_tokens
        shortened = []
        for text, encoding in zip(documents, self._plain(documents), strict=True):
            tokens = most - (query_tokens > len(encoding))
            is_longer = len(encoding) > query_tokens
            shortened.append(text if is_longer else _kept(text, encoding, tokens, keep_end=keep_end))
        return shortened

    def encode(self, inputs: Sequence[Input], long_documents: LongDocuments) -> list[EncodedInput]:
        """Each input with special tokens; in one window unless `windows`."""
        tokenizer = self._tokenizers[long_documents]
        encodings = chain.from_iterable(tokenizer.encode_batch_fast(part) for part in _slices(inputs))
        if long_documents == "windows":
            return [EncodedInput(_windows(encoding)) for encoding in encodings]
        length = cache(self._plain_length)  # the pairs of a query share it
        return [
            EncodedInput([Window(encoding.ids, encoding.type_ids)], *self._truncated(given, encoding, length))
            for given, encoding in zip(inputs, encodings, strict=True)
        ]

    def truncated_part(self, text: str, *, keep_end: bool = False) -> str:
        """The part of a single text that decides what `encode` keeps of it when it truncates.

        Raises:
            TextTooLongError: The text is very long, and no part of it is known to decide.
        """
        return self._long_texts.part(text, self._max_tokens, "left" if keep_end else "right")

    def length(self, text: str) -> int:
        """Number of tokens of a text alone, special tokens included."""
        return len(self._whole.encode(text).ids)

    def shorten(self, texts: Sequence[str], tokens: int, *, keep_end: bool = False) -> list[str]:
        """Shortens each text to its first (or last) `tokens` tokens, without special tokens.

        Tokenizes no more of a long text than necessary.

        Raises:
            TextTooLongError: A text is very long, and no part of it is known to decide.
        """
        shortened = list(texts)
        long = [index for index, text in enumerate(texts) if _may_exceed(text, tokens)]
        side: Side = "left" if keep_end else "right"
        parts = [self._long_texts.part(texts[index], tokens, side) for index in long]
        for index, part, encoding in zip(long, parts, self._plain(parts), strict=True):
            shortened[index] = _kept(part, encoding, tokens, keep_end=keep_end)
        return shortened

    def _truncated(self, given: Input, encoding: Encoding, length: Callable[[str], int]) -> tuple[bool, bool]:
        """Whether tokens of the first of two texts, and of the only or the second text, were dropped."""
        # The overflow is copied, and only a full encoding has one.
        if len(encoding.ids) < self._max_tokens or not encoding.overflowing:
            return False, False
        if isinstance(given, str):
            return False, True
        query, text = given
        kept = encoding.sequence_ids
        if kept.count(0) == length(query):
            return False, True
        return True, kept.count(1) < self._plain_length(text)

    def _plain_length(self, text: str) -> int:
        """Number of tokens without special tokens."""
        return len(self._whole.encode(text, add_special_tokens=False))

    def _plain(self, texts: Sequence[str]) -> Iterator[Encoding]:
        """Encodings without special tokens, a slice at a time, because they take many times the texts' memory."""
        for part in _slices(texts):
            yield from self._whole.encode_batch(part, add_special_tokens=False)


def truncated_documents(
    given: Sequence[str], shortened: Sequence[str], encoded: Sequence[EncodedInput]
) -> frozenset[int]:
    """Indices of the documents that were shortened before they were tokenized, or truncated then."""
    return frozenset(
        index
        for index, (whole, text, each) in enumerate(zip(given, shortened, encoded, strict=True))
        if each.text_truncated or len(text) < len(whole)
    )


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


def _kept(text: str, encoding: Encoding, tokens: int, *, keep_end: bool) -> str:
    if len(encoding) <= tokens:
        return text
    return _end(text, encoding, tokens) if keep_end else _start(text, encoding, tokens)


def _windows(first: Encoding) -> list[Window]:
    whole = Window(first.ids, first.type_ids)
    return [whole, *(Window(e.ids, _types_as_in(first, len(e.ids))) for e in first.overflowing)]


def _types_as_in(first: Encoding, length: int) -> list[int]:
    """The type ids of a later window: `tokenizers` counts the overflow of a second text as part of the first."""
    types, texts = first.type_ids, first.sequence_ids
    split = max(text for text in texts if text is not None)
    start = texts.index(split)
    after = texts[::-1].index(split)
    return types[:start] + [types[start]] * (length - start - after) + types[len(types) - after :]


def _may_exceed(text: str, tokens: int) -> bool:
    # A token has at least one byte. A tokenizer may put a space before the text, and its normalizer may expand a
    # compatibility character: U+FDFA becomes 18 characters.
    return len(text) >= tokens or len(text.encode()) >= tokens or not unicodedata.is_normalized("NFKC", text)


def _start(text: str, encoding: Encoding, tokens: int) -> str:
    """The first `tokens` tokens of the text, without a character that the last one shares with the next token."""
    return text[: min(encoding.offsets[tokens - 1][1], encoding.offsets[tokens][0])]


def _end(text: str, encoding: Encoding, tokens: int) -> str:
    """The last `tokens` tokens of the text, without a character that the first one shares with the token before."""
    return text[max(encoding.offsets[-tokens][0], encoding.offsets[-tokens - 1][1]) :]


def _truncating(
    serialized: str, max_tokens: int, *, direction: str = "right", stride: int = 0, strategy: str = "longest_first"
) -> Tokenizer:
    tokenizer = bare_tokenizer(serialized)
    tokenizer.enable_truncation(max_tokens, stride=stride, strategy=strategy, direction=direction)
    return tokenizer
