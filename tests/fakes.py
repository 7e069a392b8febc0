"""Fakes of models, with answers that a test can compute by hand."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bentos.embedding.model import BatchItem, ModelInfo
from bentos.models.tokens import EncodedText, Side, TokenPiece
from bentos.reranking.model import EncodedQuery, LongDocuments, Pair, ScoreForm
from bentos.reranking.model import ModelInfo as RerankingModelInfo
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
    batch_s: float = 0.0
    """Time that a batch takes, in seconds."""
    poison: str = ""
    """A word that makes its batch fail."""
    failure: TorchlessError | None = None
    """The error of every batch."""
    batches: list[list[int]] = field(default_factory=list)
    """Lengths of the items of each batch so far."""
    running: threading.Event = field(default_factory=threading.Event)
    """Set when a batch has started."""

    def __post_init__(self) -> None:
        self._words: dict[int, str] = {0: "[START]"}

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
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
        return EncodedText([0, *kept], truncated=True)

    def _id_of(self, word: str) -> int:
        number = word_id(word)
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

    def embed(self, items: Sequence[BatchItem], prompt_tokens: int) -> list[NDArray[np.float32]]:
        self.running.set()
        self.batches.append([len(item.encoded.ids) for item in items])
        time.sleep(self.batch_s)
        if self.failure is not None:
            raise self.failure
        if self.poison and any(self._id_of(self.poison) in item.encoded.ids for item in items):
            raise RuntimeError("the batch is poisoned")
        return [
            token_vectors(item.encoded.ids) if item.per_token else pooled_vector(item.encoded.ids) for item in items
        ]


@dataclass
class FakeRerankingModel:
    """Words are tokens, a query and a document are read together, and `pair_score` is the score of what is read.

    One special token stands before each of the two. Windows have one word in common. A query takes at most half of the
    tokens, except where what is too long is to be refused.
    """

    id: str = "fake"
    device: str = "cpu"
    max_tokens: int = 16
    max_tokens_per_doc: int = 100
    long_documents: Literal["cut", "windows"] = "cut"
    max_batch_tokens: int = 64
    poison: str = ""
    """A word that makes its batch fail."""
    answers: dict[str, float] = field(default_factory=dict)
    """Scores of what holds one of these words."""
    failure: TorchlessError | None = None
    """The error of every batch."""
    batches: list[list[int]] = field(default_factory=list)
    """Lengths of the pairs of each batch so far."""
    running: threading.Event = field(default_factory=threading.Event)
    """Set when a batch has started."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Batches wait until it is set, as it is at first."""

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def info(self) -> RerankingModelInfo:
        return RerankingModelInfo(
            id=self.id,
            revision="r1",
            kind="cross_encoder",
            max_tokens=self.max_tokens,
            max_tokens_per_doc=self.max_tokens_per_doc,
            long_documents=self.long_documents,
            device=self.device,
            dtype="float32",
            max_batch_tokens=self.max_batch_tokens,
            created=1,
        )

    def encode(
        self, query: str, documents: Sequence[str], long_documents: LongDocuments, max_tokens_per_doc: int
    ) -> EncodedQuery:
        keeps_end = long_documents == "cut_start"
        asked = [word_id(word) for word in query.split()]
        whole = len(asked)
        if long_documents != "refuse":
            asked = _kept(asked, (self.max_tokens - 2) // 2)
        encoded, truncated = [], set()
        for index, text in enumerate(documents):
            ids = _kept([word_id(word) for word in text.split()], max_tokens_per_doc, end=keeps_end)
            windows = self._windows(ids, self.max_tokens - 2 - len(asked), long_documents)
            encoded.append([Pair([0, *asked, 0, *window], [0] * (1 + len(asked))) for window in windows])
            if len(ids) < len(text.split()) or (long_documents != "windows" and len(windows[0]) < len(ids)):
                truncated.add(index)
        query_tokens = 1 + whole if long_documents == "refuse" else 0
        return EncodedQuery(encoded, query_tokens, frozenset(truncated), query_truncated=len(asked) < whole)

    def _windows(self, ids: list[int], room: int, way: LongDocuments) -> list[list[int]]:
        if way == "refuse":
            return [ids]
        if way != "windows":
            return [_kept(ids, room, end=way == "cut_start")]
        return [ids[start : start + room] for start in range(0, max(len(ids) - 1, 1), room - 1)]

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        self.running.set()
        if not self.gate.wait(10):
            raise RuntimeError("the test forgot the gate")
        self.batches.append([pair.tokens for pair in pairs])
        if self.failure is not None:
            raise self.failure
        if self.poison and any(word_id(self.poison) in pair.ids for pair in pairs):
            raise RuntimeError("the batch is poisoned")
        return [self._score(pair) for pair in pairs]

    def _score(self, pair: Pair) -> float:
        set_scores = [score for word, score in self.answers.items() if word_id(word) in pair.ids]
        return set_scores[0] if set_scores else pair_score(pair.ids)

    def transform_scores(self, scores: NDArray[np.float32], form: ScoreForm) -> NDArray[np.float32]:
        if form == "raw":
            return scores
        return scores * np.float32(2) if form == "model" else scores / np.float32(4)


def _kept(ids: list[int], most: int, *, end: bool = False) -> list[int]:
    return ids if len(ids) <= most else ids[-most:] if end else ids[:most]


def pair_score(ids: Sequence[int]) -> float:
    """The score of the fake reranking model, in [0, 1): a checksum, exact in float32."""
    return zlib.crc32(repr(list(ids)).encode()) % 2**20 / 2**20


def word_id(word: str) -> int:
    """Token id of a word: its checksum."""
    return 1 + zlib.crc32(word.encode()) % (VOCABULARY - 1)


def token_vectors(ids: Sequence[int]) -> NDArray[np.float32]:
    """The token vectors of the fake model, shape (tokens, DIMENSIONS)."""
    return np.stack([np.random.default_rng(n).standard_normal(DIMENSIONS, dtype=np.float32) for n in ids])


def pooled_vector(ids: Sequence[int]) -> NDArray[np.float32]:
    """The pooled vector of the fake model, not normalized, shape (DIMENSIONS,)."""
    total: NDArray[np.float32] = token_vectors(ids).sum(axis=0)
    return total
