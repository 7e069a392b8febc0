"""What every client's answer is held against: one text a request, over plain HTTP, with Python's own client."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DIMENSIONS = 384
MAX_TOKENS = 256
TEXTS = (
    "How do swifts sleep?",
    "Swifts sleep on the wing: for minutes at a time,\nthey glide with half of the brain awake.",
    "Der Mauersegler schläft im Flug. 雨燕在飞行中睡觉。 🐦",
    "x",
    "A swift may fly for ten months without once coming to rest. " * 40,
)
"""Short and long (the last one is cut by the model), with a line break, and beyond ASCII."""


class PlainHTTP:
    """Asks a gateway.

    Args:
        url: Its base URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._scores: dict[tuple[str, str], float] = {}

    def post(self, path: str, body: Any) -> Any:
        """The JSON answer to a JSON body; other statuses than 2xx raise `urllib.error.HTTPError`."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}{path}", data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def vector(self, text: str) -> NDArray[np.float32]:
        """The vector of one text, shape (dimensions,), from a request of its text alone."""
        if text not in self._vectors:
            answer = self.post("/v1/embeddings", {"input": text})
            self._vectors[text] = np.array(answer["data"][0]["embedding"], dtype=np.float32)
        return self._vectors[text]

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts, shape (texts, dimensions), each from a separate request."""
        return np.stack([self.vector(text) for text in texts])

    def score(self, query: str, passage: str) -> float:
        """The score from 0 to 1 of one passage for a query, from a request of its text alone."""
        if (query, passage) not in self._scores:
            answer = self.post("/v2/rerank", {"query": query, "documents": [passage]})
            self._scores[query, passage] = answer["results"][0]["relevance_score"]
        return self._scores[query, passage]

    def scores(self, query: str, passages: Sequence[str]) -> NDArray[np.float64]:
        """The scores of passages for a query, shape (passages,), each from a separate request."""
        return np.array([self.score(query, passage) for passage in passages])

    def tokens(self, texts: Sequence[str]) -> int:
        """Tokens that the model reads of all texts together, special tokens included."""
        return sum(min(len(found), MAX_TOKENS) for found in self.post("/tokenize", {"inputs": list(texts)}))


def assert_same(vectors: Any, expected: NDArray[np.float32]) -> None:
    """Fails unless `vectors` has the shape of `expected` and each row a cosine of at least 0.99999 with its row."""
    actual = np.asarray(vectors, dtype=np.float64)
    assert actual.shape == expected.shape
    lengths = np.linalg.norm(actual, axis=-1) * np.linalg.norm(expected, axis=-1)
    cosines = (actual * expected).sum(axis=-1) / lengths
    assert cosines.min() >= 0.99999
