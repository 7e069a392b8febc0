"""sentence-transformers, called without a service. Runs in the environment of the bentos."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]  # checked without torch, too
from numpy.typing import NDArray
from sentence_transformers import (  # type: ignore[import-not-found, unused-ignore]
    CrossEncoder,
    SentenceTransformer,
)
from sentence_transformers.util import mean_maxsim  # type: ignore[import-not-found, unused-ignore]
from torch.nn.functional import normalize  # type: ignore[import-not-found, unused-ignore]
from transformers import (  # type: ignore[import-not-found, unused-ignore]
    BertConfig,
    BertForSequenceClassification,
)

from benchmarks.data.inputs import Request


class DirectModel(Protocol):
    """A model that answers requests that arrive together in as few batches as possible."""

    def __call__(self, requests: Sequence[Request], batch: int) -> NDArray[np.float32]:
        """Vectors, shape (texts, dimensions), or raw scores, shape (documents, 1).

        Args:
            requests: The requests.
            batch: Most texts or pairs in one batch.
        """


class Embedding:
    """An embedding model.

    Args:
        folder: Its folder.
        device: Its device, as torch names it.
        dtype: Type of its weights.
    """

    def __init__(self, folder: Path | str, device: str = "cpu", dtype: str = "float32") -> None:
        self._model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype})

    def __call__(self, requests: Sequence[Request], batch: int) -> NDArray[np.float32]:
        """See `DirectModel`."""
        vectors = self._model.encode(
            _texts(requests), batch_size=batch, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype="<f4")

    def token_counts(self, texts: list[str]) -> list[int]:
        """Number of tokens of each text, including special tokens."""
        return [len(ids) for ids in self._model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]


class _Read(NamedTuple):
    tokens: torch.Tensor
    """Shape (tokens, dimensions), each of length 1."""
    pooled: torch.Tensor
    """Shape (dimensions,), of length 1."""


class LateInteraction:
    """The mean of MaxSim over token vectors of an embedding model and of the cosine of its embeddings.

    Queries are encoded together, once each, and so are all documents. Arguments are those of `Embedding`.
    """

    def __init__(self, folder: Path | str, device: str = "cpu", dtype: str = "float32") -> None:
        self._model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype})

    def __call__(self, requests: Sequence[Request], batch: int) -> NDArray[np.float32]:
        """See `DirectModel`."""
        queries = self._read([request.query for request in requests], batch)
        documents = iter(self._read(_texts(requests), batch))
        with torch.inference_mode():
            scores = [
                self._score(query, [next(documents) for _ in request.texts])
                for query, request in zip(queries, requests, strict=True)
            ]
            return np.asarray(torch.cat(scores).float().cpu().numpy(), dtype="<f4")[:, np.newaxis]

    def _read(self, texts: list[str], batch: int) -> list[_Read]:
        # No other output value returns token vectors and text vectors from one forward pass.
        found: Any = self._model.encode(texts, batch_size=batch, output_value=None, show_progress_bar=False)
        return [
            _Read(normalize(one["token_embeddings"][one["attention_mask"].bool()], dim=-1), one["sentence_embedding"])
            for one in found
        ]

    def _score(self, query: _Read, documents: list[_Read]) -> torch.Tensor:
        maxsim = mean_maxsim([query.tokens], [document.tokens for document in documents])[0]
        cosine = torch.stack([document.pooled for document in documents]) @ query.pooled
        return 0.5 * maxsim + 0.5 * cosine


class CrossEncoding:
    """The cross-encoder in a folder. Arguments are those of `Embedding`."""

    def __init__(self, folder: Path | str, device: str = "cpu", dtype: str = "float32") -> None:
        self._model = CrossEncoder(str(folder), device=device, model_kwargs={"dtype": dtype})

    def __call__(self, requests: Sequence[Request], batch: int) -> NDArray[np.float32]:
        """See `DirectModel`."""
        pairs = [(request.query, text) for request in requests for text in request.texts]
        scores = self._model.predict(
            pairs, batch_size=batch, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return np.asarray(scores, dtype="<f4").reshape(len(pairs), 1)


def save_cross_encoder(folder: Path, minilm: Path) -> None:
    """Saves a cross-encoder with the size and the tokenizer of MiniLM, 6 layers of 384, and random weights.

    Nothing is downloaded, and the cost does not depend on the weights.
    """
    torch.manual_seed(0)
    size: Any = {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "num_labels": 1,
    }
    # Weights five times as large as usual, so that scores of different texts differ.
    size["num_labels"] = 1
    config = BertConfig(vocab_size=30_522, initializer_range=0.1, **size)
    BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(minilm / name, folder)


def _texts(requests: Sequence[Request]) -> list[str]:
    return [text for request in requests for text in request.texts]
