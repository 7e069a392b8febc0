"""Stand-ins for what is not under test. The one for torch: a model whose vectors can be worked out by hand."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bentos.embedding.model import ModelCard, PassItem
from bentos.models.tokens import EncodedText, Side, TokenPiece
from torchless.contracts.errors import TorchlessError

DIMENSIONS = 8
VOCABULARY = 30_000


@dataclass
class FakeEmbeddingModel:
    """Words are tokens, a word's id is its checksum, and a text's vector is the sum of what its ids seed.

    One special token stands before each text, so that an empty prompt and a text of one word make two tokens.
    """

    id: str = "fake"
    max_tokens: int = 16
    max_batch_tokens: int = 64
    pass_s: float = 0.0
    """Time that a pass takes, in seconds."""
    poison: str = ""
    """A word whose presence in a pass makes it fail."""
    failure: TorchlessError | None = None
    """What every pass raises."""
    passes: list[list[int]] = field(default_factory=list)
    """Lengths of the items of each pass so far."""
    running: threading.Event = field(default_factory=threading.Event)
    """Set once a pass has begun."""

    def __post_init__(self) -> None:
        self._words: dict[int, str] = {0: "[START]"}

    @property
    def card(self) -> ModelCard:
        return ModelCard(
            id=self.id,
            revision="r1",
            dimensions=DIMENSIONS,
            max_tokens=self.max_tokens,
            matryoshka_dimensions=(4, 2),
            prompts={"query": "find: ", "document": ""},
            default_prompt_name=None,
            device="cpu",
            dtype="float32",
            pooling="sum",
            max_batch_tokens=self.max_batch_tokens,
            vocabulary_size=VOCABULARY,
            created=1,
        )

    def encode(self, texts: Sequence[str], truncate: Side | None) -> list[EncodedText]:
        return [self._encode(text, truncate) for text in texts]

    def _encode(self, text: str, truncate: Side | None) -> EncodedText:
        ids = [self._id_of(word) for word in text.split()]
        room = self.max_tokens - 1
        if truncate is None or len(ids) <= room:
            return EncodedText([0, *ids])
        kept = ids[:room] if truncate == "right" else ids[-room:]
        return EncodedText([0, *kept], dropped=len(ids) - room)

    def _id_of(self, word: str) -> int:
        number = 1 + zlib.crc32(word.encode()) % (VOCABULARY - 1)
        self._words[number] = word
        return number

    def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[TokenPiece]]:
        answers = []
        for text in texts:
            pieces = [TokenPiece(0, "[START]", True, None, None)] if add_special_tokens else []
            end = 0
            for word in text.split():
                start = text.index(word, end)
                end = start + len(word)
                pieces.append(TokenPiece(self._id_of(word), word, False, start, end))
            answers.append(pieces)
        return answers

    def detokenize(self, ids: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        return [
            " ".join(self._words.get(n, f"w{n}") for n in one if not (n == 0 and skip_special_tokens)) for one in ids
        ]

    def prompt_tokens(self, prompt_name: str | None) -> int:
        return 0

    def embed(self, items: Sequence[PassItem], prompt_tokens: int) -> list[NDArray[np.float32]]:
        self.running.set()
        self.passes.append([len(item.encoded.ids) for item in items])
        time.sleep(self.pass_s)
        if self.failure is not None:
            raise self.failure
        if self.poison and any(self._id_of(self.poison) in item.encoded.ids for item in items):
            raise RuntimeError("the pass is poisoned")
        return [
            token_vectors(item.encoded.ids) if item.per_token else pooled_vector(item.encoded.ids) for item in items
        ]


def token_vectors(ids: Sequence[int]) -> NDArray[np.float32]:
    """What the fake model answers per token, shape (tokens, DIMENSIONS)."""
    return np.stack([np.random.default_rng(n).standard_normal(DIMENSIONS, dtype=np.float32) for n in ids])


def pooled_vector(ids: Sequence[int]) -> NDArray[np.float32]:
    """What the fake model answers for a text, not normalised, shape (DIMENSIONS,)."""
    total: NDArray[np.float32] = token_vectors(ids).sum(axis=0)
    return total
