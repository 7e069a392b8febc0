"""The interface of an embedding model; `torch_model` implements it and is the only file that imports torch."""

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
    """Fingerprint of what decides its vectors."""
    dimensions: int
    """Length of a full vector."""
    max_tokens: int
    """Longest input in tokens, special tokens included."""
    matryoshka_dimensions: tuple[int, ...]
    """Lengths to which vectors may be truncated, descending."""
    prompts: Mapping[str, str]
    """Texts put before an input, by name."""
    default_prompt_name: str | None
    """Prompt of inputs without a prompt name and purpose."""
    device: str
    """Device that it runs on."""
    dtype: str
    """Type of its weights."""
    pooling: str
    """How token vectors become one vector."""
    max_batch_tokens: int
    """Token budget of one batch, padding included."""
    vocabulary_size: int
    """Number of token ids; every id is below it."""
    created: int
    """When the model was loaded, in seconds since the Unix epoch."""

    @property
    def summary(self) -> str:
        """The facts that an operator wants to see, in one line."""
        return (
            f"model {self.id}: revision {self.revision}, {self.device}, {self.dtype}, {self.dimensions} dimensions, "
            f"{self.max_tokens} tokens"
        )


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One input of a batch."""

    encoded: EncodedText
    per_token: bool = False
    """Whether to return a vector per token instead of a pooled one."""


class EmbeddingModel(Protocol):
    """A loaded model. Methods other than `embed` may be called from any thread, at any time."""

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""

    def encode(self, texts: Sequence[str], truncate: Side | None) -> list[EncodedText]:
        """Tokenizes with special tokens; truncates to `max_tokens` unless `truncate` is None.

        Raises:
            TorchlessError: INPUT_TOO_LARGE, when a very long text can only be tokenized as a whole.
        """

    def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[TokenPiece]]:
        """Tokens with their texts and positions, without truncation."""

    def detokenize(self, ids: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        """The text of each sequence of ids."""

    def prompt_tokens(self, prompt_name: str | None) -> int:
        """Leading tokens of this prompt that pooling leaves out; 0 for models that pool over the prompt too."""

    def embed(self, items: Sequence[BatchItem], prompt_tokens: int) -> list[NDArray[np.float32]]:
        """Computes one batch; called by one thread at a time.

        Returns:
            For each item its pooled vector, not normalized, shape (dimensions,); or with `per_token` the vectors of its
            tokens, shape (tokens, dimensions).

        Raises:
            TorchlessError: GPU_UNAVAILABLE, when the device is lost.
        """
