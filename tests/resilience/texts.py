"""What requests ask for, and whether an answer is the answer to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tests.resilience.stub.model import stub_vector

_CLOSE = 0.9999


class Texts(Protocol):
    """Texts whose vectors are known."""

    def text(self, number: int) -> str:
        """The text of the request of that number."""

    def is_answer(self, text: str, vector: Sequence[float] | NDArray[np.float32]) -> bool:
        """Whether `vector` is the text's."""


class FreshTexts:
    """A text that was never sent before in each request, so that no cache knows it; answered by stubs.

    Args:
        prefix: A word that sets the texts of one load apart from those of others.
    """

    def __init__(self, prefix: str = "request") -> None:
        self._prefix = prefix

    def text(self, number: int) -> str:
        """The text of the request of that number."""
        return f"{self._prefix} number {number}"

    def is_answer(self, text: str, vector: Sequence[float] | NDArray[np.float32]) -> bool:
        """Whether `vector` is the text's."""
        return close(stub_vector(text), vector)


class KnownTexts:
    """Texts that come again and again, whose vectors were requested before.

    Args:
        vectors: Vector of each text, shape (dimensions,).
    """

    def __init__(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        self._vectors = vectors
        self._order = list(vectors)

    @classmethod
    def of_stub(cls, count: int, prefix: str = "known") -> KnownTexts:
        """`count` texts with the stub's vectors."""
        texts = [f"{prefix} text {number}" for number in range(count)]
        return cls({text: stub_vector(text) for text in texts})

    def text(self, number: int) -> str:
        """The text of the request of that number."""
        return self._order[number % len(self._order)]

    def is_answer(self, text: str, vector: Sequence[float] | NDArray[np.float32]) -> bool:
        """Whether `vector` is the text's."""
        return close(self._vectors[text], vector)


def close(expected: NDArray[np.float32], given: Sequence[float] | NDArray[np.float32]) -> bool:
    """Whether both, of length 1, are the same direction: not equal, since the size of a batch moves the last bits."""
    vector = np.asarray(given, dtype=np.float32)
    return vector.shape == expected.shape and float(expected @ vector) > _CLOSE
