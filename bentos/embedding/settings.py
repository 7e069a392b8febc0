"""Settings of the embedding bento."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from bentos.models.settings import MINILM, ModelServingSettings, WeightsSettings, refuse_equal_ids


class ModelSettings(WeightsSettings):
    """One embedding model."""

    prompts: dict[str, str] = Field(default_factory=dict)
    """Prompts by name; they override the model's own."""
    query_prompt: str = "query"
    """Name of the prompt for search queries, if the model has one."""
    document_prompt: str = "document"
    """Name of the prompt for passages, if the model has one."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Lengths for whose truncation the model was trained; empty: vectors may not be truncated."""


DEFAULT_MODEL = ModelSettings.model_validate(MINILM.model_dump())
"""all-MiniLM-L6-v2 from an installed package: no download, no GPU."""


class EmbeddingSettings(ModelServingSettings):
    """The embedding bento."""

    env_prefix = "TORCHLESS_EMBEDDING_"

    models: tuple[ModelSettings, ...] = Field(default=(DEFAULT_MODEL,), min_length=1)
    """The served models; the first is the default. Models on the same device share its queue."""
    max_inputs: int = Field(default=4096, ge=1)
    """Most inputs in one request or frame."""
    max_input_characters: int = Field(default=1_000_000, ge=1)
    """Longest input of which all is tokenized, in characters: when the request refuses truncation, or only counts
    tokens. Of an input that may be truncated, only the part that the model reads is tokenized."""
    max_request_characters: int = Field(default=4_000_000, ge=1)
    """Most characters of all such inputs of a request together."""
    max_tokenize_characters: int = Field(default=1_000_000, ge=1)
    """Most characters, or token ids, of a request to Tokenize or Detokenize, whose answers are many times as large."""
    stream_window: int = Field(default=4, ge=1, le=256)
    """Frames of a bulk stream that are processed at once; the next is read when one is answered."""

    @model_validator(mode="after")
    def _consistent_models(self) -> Self:
        refuse_equal_ids(self.models)
        return self
