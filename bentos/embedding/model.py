"""What the service needs of an embedding model; `torch_model` is one, and the only file that knows torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bentos.models.tokens import EncodedText, Side, TokenPiece


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts about a model that callers see."""

    id: str
    """Name that requests use."""
    revision: str
    """Pinned revision of the weights."""
    dimensions: int
    """Length of a whole vector."""
    max_tokens: int
    """Longest input in tokens, special tokens included."""
    matryoshka_dimensions: tuple[int, ...]
    """Lengths to which vectors may be cut, descending."""
    prompts: Mapping[str, str]
    """Text put before an input, by name."""
    default_prompt_name: str | None
    """Prompt of inputs that name none and say no purpose."""
    device: str
    """Device that it runs on."""
    dtype: str
    """Type of its weights."""
    pooling: str
    """How tokens become one vector."""
    max_batch_tokens: int
    """Padded tokens of one batch."""
    vocabulary_size: int
    """Token ids are below it."""
    created: int
    """Seconds since the Unix epoch when it was made ready."""


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One input of a batch."""

    encoded: EncodedText
    per_token: bool = False
    """Whether a vector for each token is wanted, instead of a pooled one."""


class EmbeddingModel(Protocol):
    """A loaded model. Methods other than `embed` may be called from any thread, at any time."""

    @property
    def info(self) -> ModelInfo:
        """Facts about it."""

    def encode(self, texts: Sequence[str], truncate: Side | None) -> list[EncodedText]:
        """Tokenizes, special tokens included; to at most `max_tokens` unless `truncate` is None."""

    def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[TokenPiece]]:
        """Tokenizes for people to look at, without truncation."""

    def detokenize(self, ids: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        """The text of each sequence of ids."""

    def prompt_tokens(self, prompt_name: str | None) -> int:
        """Leading tokens that pooling must leave out for this prompt; 0 for models that pool over the prompt too."""

    def embed(self, items: Sequence[BatchItem], prompt_tokens: int) -> list[NDArray[np.float32]]:
        """One batch, called by one thread at a time.

        Returns:
            For each item its vector as the model pools it, not normalised, shape (dimensions,); or with `per_token` the
            vectors of its tokens, shape (tokens, dimensions).

        Raises:
            TorchlessError: GPU_UNAVAILABLE, when the device is gone.
        """
