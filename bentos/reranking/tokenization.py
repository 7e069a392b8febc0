"""Texts and pairs of texts to token ids, with what is too long cut or read in windows. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer

from bentos.models.tokenizer import bare_tokenizer
from bentos.reranking.model import LongDocuments
from torchless.settings import SettingsError

Input = str | tuple[str, str]
"""A text, or a query and a document that are read together."""


class CuttingTokenizer:
    """A model's tokenizer, in one copy for each way with what is too long, because that is a state of the copy.

    Pairs are cut as sentence-transformers' `CrossEncoder` does, from the longer of the two; in windows it is the
    document alone that is split.

    Args:
        serialized: The tokenizer as JSON.
        max_tokens: Length to which inputs are cut, special tokens included.
        overlap_tokens: Tokens that a window has in common with the one before it.
        pairs: Whether inputs are pairs.

    Raises:
        SettingsError: Windows would have nothing of their own.
    """

    def __init__(self, serialized: str, max_tokens: int, overlap_tokens: int, *, pairs: bool) -> None:
        self._max_tokens = max_tokens
        self._whole = bare_tokenizer(serialized)
        self._special_tokens = self._whole.num_special_tokens_to_add(pairs)
        longest_overlap = self.longest_query // 2
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

    def encode(self, inputs: Sequence[Input], way: LongDocuments) -> list[list[Encoding]]:
        """For each input its windows, special tokens included: one, unless that is the way and the input is long."""
        encodings = self._ways[way].encode_batch_fast(list(inputs))
        return [[e, *e.overflowing] if way == "windows" else [e] for e in encodings]

    def length(self, text: str) -> int:
        """Tokens of a text alone, special tokens included."""
        return len(self._whole.encode(text).ids)

    def shortened(self, texts: Sequence[str], tokens: int, *, keep_end: bool = False) -> list[str]:
        """The texts, each cut to its first (or last) `tokens` tokens, special tokens not counted."""
        # No vocabulary makes more tokens of a text than the text has bytes.
        long = [index for index, text in enumerate(texts) if len(text) > tokens or len(text.encode()) > tokens]
        cut = list(texts)
        encodings = self._whole.encode_batch([texts[index] for index in long], add_special_tokens=False)
        for index, encoding in zip(long, encodings, strict=True):
            places = encoding.offsets
            if len(places) > tokens:
                text = texts[index]
                cut[index] = text[places[-tokens][0] :] if keep_end else text[: places[tokens - 1][1]]
        return cut


def _cutting(
    serialized: str, max_tokens: int, *, direction: str = "right", stride: int = 0, strategy: str = "longest_first"
) -> Tokenizer:
    tokenizer = bare_tokenizer(serialized)
    tokenizer.enable_truncation(max_tokens, stride=stride, strategy=strategy, direction=direction)
    return tokenizer
