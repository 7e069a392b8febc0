"""OpenAI's embeddings and models API, as far as it concerns embeddings.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.apis.field_types import AnswerModel, Inputs, NullIsAbsent, RequestModel


class EmbeddingsRequest(RequestModel):
    """Inputs to embed, and the form of the response."""

    input: Inputs
    """One input or several. Token ids are read as cl100k_base unless the gateway is configured otherwise."""
    model: Annotated[str, *NullIsAbsent] = ""
    """Model id or alias. Absent: the default model."""
    encoding_format: Annotated[Literal["float", "base64"], *NullIsAbsent] = "float"
    """Vectors as numbers, or as base64 of little-endian float32."""
    dimensions: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """Leading dimensions to keep, if the model supports it. Absent or 0: all."""
    modality: Annotated[Literal["text"], *NullIsAbsent] = "text"
    """infinity's extension; only `text` is supported."""
    truncate: bool | None = None
    """Jina's extension: truncate inputs longer than the model's maximum length; false: refuse them. Absent: as the
    gateway is configured."""
    truncate_prompt_tokens: Literal[-1] | None = None
    """vLLM's extension: -1 truncates inputs at the model's maximum length; other numbers are not supported. Absent: as
    `truncate` says."""
    truncation_side: Annotated[Literal["left", "right"], *NullIsAbsent] = "right"
    """vLLM's extension: which end is truncated."""


class Embedding(AnswerModel):
    """One vector."""

    object: Literal["embedding"]
    """Always `embedding`."""
    index: int
    """Position of the input."""
    embedding: list[float] | str
    """The vector, as numbers or base64."""


class Usage(AnswerModel):
    """Tokens that the model read, with special tokens and prompt."""

    prompt_tokens: int
    """Tokens of all inputs."""
    total_tokens: int
    """The same number."""


class EmbeddingsAnswer(AnswerModel):
    """The vectors, in the order of the inputs."""

    object: Literal["list"]
    """Always `list`."""
    data: list[Embedding]
    """One vector for each input."""
    model: str
    """Id of the model that answered."""
    usage: Usage
    """Token counts."""


class Model(AnswerModel):
    """A served model."""

    id: str
    """Its id."""
    object: Literal["model"]
    """Always `model`."""
    created: int
    """When it became ready, in seconds since the Unix epoch."""
    owned_by: str
    """Name of the server."""
    capabilities: list[Literal["embed", "rerank"]]
    """What it can do."""
    revisions: dict[Literal["embed", "rerank"], str]
    """For each capability, the fingerprint of what decides the results: weights, tokenizer, prompts, dtype, maximum
    length and so on. It changes whenever they do."""


class ModelsAnswer(AnswerModel):
    """The served models, the default model first."""

    object: Literal["list"]
    """Always `list`."""
    data: list[Model]
    """One entry for each model."""


class ErrorDetail(AnswerModel):
    """What went wrong."""

    message: str
    """For people: what was wrong and what to change."""
    type: str
    """OpenAI's type of the error, for instance `invalid_request_error`."""
    param: str | None
    """The field at fault."""
    code: str | None
    """For programs, for instance `model_not_found`."""


class ErrorAnswer(AnswerModel):
    """OpenAI's error body."""

    error: ErrorDetail
    """What went wrong."""
