"""The cl100k_base vocabulary: from ids to text, which needs neither merges nor a tokenizer.

`ranks.xz` holds, compressed with xz, one byte a token with the length of its bytes, for ids 0 to 100255, and then those
bytes one token after another. In memory it is 644 kB of bytes and 401 kB of offsets.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

import numpy as np

from torchless.contracts.errors import invalid_input
from torchless.contracts.field_path import FieldPath

ORDINARY = 100_256
"""Number of ordinary tokens; their ids are below it."""
SPECIAL = {
    100_257: b"<|endoftext|>",
    100_258: b"<|fim_prefix|>",
    100_259: b"<|fim_middle|>",
    100_260: b"<|fim_suffix|>",
    100_276: b"<|endofprompt|>",
}
"""Special tokens; the ids between them stand for nothing."""


class Vocabulary:
    """The byte strings of the ordinary tokens.

    Args:
        packed: Uncompressed content of `ranks.xz`.
    """

    def __init__(self, packed: bytes) -> None:
        lengths = np.frombuffer(packed, dtype=np.uint8, count=ORDINARY)
        self._starts = np.zeros(ORDINARY + 1, dtype=np.uint32)
        np.cumsum(lengths, out=self._starts[1:])
        self._bytes = packed[ORDINARY:]

    def tokens(self) -> list[bytes]:
        """All ordinary tokens in the order of their ids."""
        return [self._bytes[start:stop] for start, stop in pairwise(self._starts.tolist())]

    def decode(self, ids: Sequence[int], path: FieldPath) -> str:
        """The text of `ids`. Bytes that are not UTF-8, such as a character that was cut, become U+FFFD.

        Raises:
            TorchlessError: INVALID_INPUT at `path` and the position, for an id that is not in the vocabulary.
        """
        return b"".join([self._token(ids, position, path) for position in range(len(ids))]).decode(errors="replace")

    def _token(self, ids: Sequence[int], position: int, path: FieldPath) -> bytes:
        token_id = ids[position]
        if 0 <= token_id < ORDINARY:
            start, stop = self._starts[token_id : token_id + 2]
            return self._bytes[start:stop]
        if token_id in SPECIAL:
            return SPECIAL[token_id]
        raise invalid_input(
            (*path, position),
            f"token id {token_id} is not in the vocabulary cl100k_base; send texts, or ids of that vocabulary",
        )


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """The vocabulary; read from the package with the first call."""
    return Vocabulary(lzma.decompress(files("gateway.apis.openai.cl100k").joinpath("ranks.xz").read_bytes()))
