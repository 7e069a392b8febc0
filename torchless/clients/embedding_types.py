"""Options, vectors, tokens and models of the embedding service."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from torchless.clients.timings import NO_TIMINGS, Timings
from torchless.contracts.embedding.v1 import embedding_pb2 as pb


class InputType(IntEnum):
    """Purpose of a text; selects the model's prompt."""

    UNSPECIFIED = pb.INPUT_TYPE_UNSPECIFIED
    QUERY = pb.INPUT_TYPE_QUERY
    DOCUMENT = pb.INPUT_TYPE_DOCUMENT


class Truncation(IntEnum):
    """What happens to an input longer than the model's maximum length."""

    RIGHT = pb.TRUNCATION_RIGHT
    LEFT = pb.TRUNCATION_LEFT
    NONE = pb.TRUNCATION_NONE


class Granularity(IntEnum):
    """One vector per input, or one per token."""

    TEXT = pb.GRANULARITY_TEXT
    TOKEN = pb.GRANULARITY_TOKEN


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How to embed inputs; the defaults are the service's."""

    model: str = ""
    """Model id; empty: the service's default model."""
    input_type: InputType = InputType.UNSPECIFIED
    """Purpose of the inputs; ignored if `prompt_name` is given."""
    prompt_name: str = ""
    """One of the model's prompts; empty: the one of `input_type`."""
    normalize: bool = True
    """Scale each vector to length 1."""
    dimensions: int = 0
    """Leading dimensions to keep, a number that the model supports; 0: all."""
    truncation: Truncation = Truncation.RIGHT
    """What happens to inputs longer than the model's maximum length."""
    granularity: Granularity = Granularity.TEXT
    """One vector per input, or one per token."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of inputs."""

    vectors: NDArray[np.float32]
    """Read-only. Shape (inputs, dimensions), or (sum of token_counts, dimensions) for token granularity."""
    token_counts: list[int]
    """Tokens that the model read for each input, special tokens and prompt included."""
    model: str
    """Id of the model that answered."""
    revision: str
    """Fingerprint of what decided the vectors, as in `EmbeddingModelInfo`."""
    timings: Timings = NO_TIMINGS
    """Where the time went inside the service."""
    truncated: list[int] = field(default_factory=list)
    """Indices of the inputs that were longer than the model reads and were truncated, ascending."""

    def per_input(self) -> list[NDArray[np.float32]]:
        """For token granularity: one array per input, shape (tokens, dimensions)."""
        ends = np.cumsum(self.token_counts)[:-1]
        return np.split(self.vectors, ends)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text."""

    id: int
    """Its id in the model's vocabulary."""
    text: str
    """A special token as the vocabulary spells it; else the piece of text that it stands for."""
    special: bool
    """Whether it is a special token."""
    start: int | None
    """First character in the text, prompt included, in Unicode code points; None for special tokens."""
    stop: int | None
    """Character after the last one; None for special tokens."""


@dataclass(frozen=True, slots=True)
class EmbeddingModelInfo:
    """A model that the service serves."""

    id: str
    """Id that requests name."""
    revision: str
    """Fingerprint of what decides the vectors: weights, tokenizer, prompts, dtype, maximum length and so on. Vectors
    with equal fingerprints are interchangeable; do not mix others in an index."""
    dimensions: int
    """Dimensions of a whole vector."""
    max_tokens: int
    """Longest input that the model reads, in tokens, special tokens included."""
    matryoshka_dimensions: tuple[int, ...]
    """Shorter dimensions that it supports, descending; empty: none."""
    prompt_names: tuple[str, ...]
    """Names of its prompts."""
    device: str
    """Device that it runs on: `cpu`, `cuda`, `cuda:0` and so on."""
    dtype: str
    """Type of its weights: `float32`, `float16` or `bfloat16`; vectors are always float32."""
    pooling: str
    """How tokens become one vector: `mean`, `cls`, `max` and so on."""
    max_batch_tokens: int
    """Padded tokens that one batch on the device may hold."""
    created: int
    """When the service loaded it, in seconds since the Unix epoch."""
    vocabulary_size: int
    """Size of its vocabulary: every token id is below it."""
