"""The stub's model: vectors by arithmetic, and a device that is a clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bentos.embedding.model import BatchItem, ModelInfo
from bentos.embedding.vectors import truncate_and_normalize
from tests.fakes import FakeEmbeddingModel, pooled_vector, token_vectors, word_id
from tests.resilience.stub.faults import FaultFile


@dataclass
class StubModel(FakeEmbeddingModel):
    """The fake model, with a time for each text, and faults; it keeps nothing of what it was given."""

    revision: str = "r1"
    text_s: float = 0.0
    """Time of one text, in seconds."""
    faults: FaultFile = field(default_factory=lambda: FaultFile(Path("/nonexistent")))
    """What is wrong with the device."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, revision=self.revision)

    def _id_of(self, word: str) -> int:
        return word_id(word)

    def embed(self, items: Sequence[BatchItem], prompt_tokens: int) -> list[NDArray[np.float32]]:
        faults = self.faults.read()
        faults.raise_failure()
        time.sleep(len(items) * self.text_s * faults.slow)
        return [
            token_vectors(item.encoded.ids) if item.per_token else pooled_vector(item.encoded.ids) for item in items
        ]


def stub_vector(text: str) -> NDArray[np.float32]:
    """The vector that every stub answers for `text`, shape (dimensions,), of length 1."""
    ids = [0, *(word_id(word) for word in text.split())]
    vector: NDArray[np.float32] = truncate_and_normalize(pooled_vector(ids)[None], 0, True)[0]
    return vector
