"""Tokenization with the `tokenizers` library, which releases the GIL and does not need torch."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from bentos.models.long_text import LongTexts
from bentos.models.tokens import EncodedText, Side, TextTooLongError, TokenPiece
from torchless.contracts.errors import input_too_large


class HubTokenizer:
    """A model's tokenizer, with one copy per truncation side, because the side is a state of the tokenizer.

    Args:
        serialized: The tokenizer as JSON, from `tokenizers.Tokenizer.to_str`.
        max_tokens: Length to which inputs are truncated, special tokens included.
    """

    def __init__(self, serialized: str, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._whole = bare_tokenizer(serialized)
        self._long_texts = LongTexts(self._whole)
        self._truncating: dict[Side, Tokenizer] = {}
        sides: tuple[Side, ...] = ("left", "right")
        for side in sides:
            self._truncating[side] = bare_tokenizer(serialized)
            self._truncating[side].enable_truncation(max_tokens, direction=side)
        self._special_ids = frozenset(
            number for number, token in self._whole.get_added_tokens_decoder().items() if token.special
        )

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids; every id is below it."""
        return int(self._whole.get_vocab_size(with_added_tokens=True))

    def encode(self, texts: Sequence[str], truncate: Side | None) -> list[EncodedText]:
        """Ids of each text, special tokens included, truncated unless `truncate` is None.

        Raises:
            TorchlessError: INPUT_TOO_LARGE, when a very long text can only be tokenized as a whole.
        """
        if truncate is None:
            return [EncodedText(e.ids) for e in self._whole.encode_batch_fast(list(texts))]
        parts = [self._part(index, text, truncate) for index, text in enumerate(texts)]
        encodings = self._truncating[truncate].encode_batch_fast(parts)
        # The overflow is copied, and only a full encoding has one.
        return [EncodedText(e.ids, truncated=len(e.ids) == self._max_tokens and bool(e.overflowing)) for e in encodings]

    def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[TokenPiece]]:
        """Tokens of each text with their positions, never truncated."""
        encodings = self._whole.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return [
            [_piece(text, *facts) for facts in zip(e.ids, e.tokens, e.offsets, e.special_tokens_mask, strict=True)]
            for text, e in zip(texts, encodings, strict=True)
        ]

    def detokenize(self, ids: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        """The text of each sequence."""
        return list(self._whole.decode_batch([list(one) for one in ids], skip_special_tokens=skip_special_tokens))

    def leading_tokens(self, prompt: str) -> int:
        """Number of tokens of `prompt`, with special tokens before it and without those after it."""
        ids = self._whole.encode(prompt).ids
        ends_special = bool(ids) and ids[-1] in self._special_ids
        return len(ids) - 1 if ends_special else len(ids)

    def _part(self, index: int, text: str, side: Side) -> str:
        try:
            return self._long_texts.part(text, self._max_tokens, side)
        except TextTooLongError as error:
            raise input_too_large(("texts", index), str(error), index=str(index)) from None


def _piece(text: str, number: int, token: str, offsets: tuple[int, int], is_special: int) -> TokenPiece:
    """One token. Special is what the tokenizer added, not the token of an unknown character, which is in the text."""
    if is_special:
        return TokenPiece(number, token, special=True, start=None, stop=None)
    start, stop = offsets
    return TokenPiece(number, text[start:stop], special=False, start=start, stop=stop)


def bare_tokenizer(serialized: str) -> Tokenizer:
    """The tokenizer that `serialized` describes, without padding and truncation."""
    tokenizer = Tokenizer.from_str(serialized)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
