"""Cohere's embed and rerank APIs, versions 1 and 2, as far as they concern texts.

Source: https://docs.cohere.com/reference/embed and https://docs.cohere.com/v1/reference/embed,
https://docs.cohere.com/reference/rerank and https://docs.cohere.com/v1/reference/rerank
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from gateway.apis.field_types import STOPS_AT_FIRST_ERROR, AnswerModel, NullIsAbsent, OneMessage, RequestModel, Texts
from gateway.apis.openai.schemas import Usage
from gateway.apis.rerank.schemas import Result

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
EmbeddingTypes = Annotated[
    list[EmbeddingType], STOPS_AT_FIRST_ERROR, Field(min_length=1, max_length=len(get_args(EmbeddingType)))
]


class _EmbedFields(RequestModel):
    model: Annotated[str, *NullIsAbsent] = ""
    """Model id or alias. Absent: the default model."""
    input_type: Annotated[Literal["search_query", "search_document", "classification", "clustering"], *NullIsAbsent] = (
        "classification"
    )
    """Purpose of the inputs; selects the prompt of the model. Images are not supported."""
    truncate: Literal["NONE", "START", "END"] | None = None
    """Which end of an input longer than the model's maximum length is truncated; NONE: refuse it. Absent: END, unless
    the gateway is configured to refuse."""
    images: Annotated[None, OneMessage("is not supported; send texts")] = None
    """Not supported."""


class EmbedV1Request(_EmbedFields):
    """Version 1."""

    texts: Texts
    """The inputs."""
    embedding_types: EmbeddingTypes | None = None
    """Forms of the vectors. Absent: one list of float vectors."""


class TextContent(RequestModel):
    """One part of a mixed input."""

    type: Literal["text"]
    """Only `text` is supported."""
    text: str
    """The text. It may be empty if another part is not."""


class MixedInput(RequestModel):
    """An input made of parts; their texts are joined by line breaks."""

    content: Annotated[list[TextContent], STOPS_AT_FIRST_ERROR, Field(min_length=1, max_length=1024)]
    """The parts."""


class EmbedV2Request(_EmbedFields):
    """Version 2. Give either `texts` or `inputs`."""

    texts: Texts | None = None
    """The inputs."""
    inputs: Annotated[list[MixedInput], STOPS_AT_FIRST_ERROR, Field(json_schema_extra={"minItems": 1})] | None = None
    """The inputs, in Cohere's form for mixed content."""
    embedding_types: Annotated[EmbeddingTypes, *NullIsAbsent] = Field(default=["float"])
    """Forms of the vectors."""
    max_tokens: Annotated[None, OneMessage("is not supported; the model's maximum length applies")] = None
    """Not supported: inputs are truncated at the model's maximum length."""
    output_dimension: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """Leading dimensions to keep, if the model supports it. Absent or 0: all."""


class ApiVersion(AnswerModel):
    """Version of the API."""

    version: str
    """`1` or `2`."""


class BilledUnits(AnswerModel):
    """Billing units of the request."""

    input_tokens: int
    """Tokens that the model read."""


class Meta(AnswerModel):
    """Metadata of the response."""

    api_version: ApiVersion
    """Version of the API."""
    billed_units: BilledUnits
    """Billing units of the request."""


class EmbeddingsByType(AnswerModel):
    """The vectors in each requested form, in the order of the inputs."""

    float_: list[list[float]] | None = Field(default=None, alias="float")
    """float32."""
    int8: list[list[int]] | None = None
    """-128 to 127; see `gateway.encoding.quantization`."""
    uint8: list[list[int]] | None = None
    """0 to 255."""
    binary: list[list[int]] | None = None
    """One bit for each dimension, eight in a byte, as -128 to 127."""
    ubinary: list[list[int]] | None = None
    """One bit for each dimension, eight in a byte, as 0 to 255."""
    base64: list[str] | None = None
    """base64 of little-endian float32."""


class EmbedAnswer(AnswerModel):
    """The vectors; version 1 without `embedding_types` returns a plain list of float vectors."""

    id: str
    """Id of the request."""
    embeddings: EmbeddingsByType | list[list[float]]
    """The vectors."""
    texts: list[str]
    """The inputs."""
    meta: Meta
    """Metadata of the response."""
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
    """Form of `embeddings`."""


class SearchUnits(AnswerModel):
    """Billing units of the request."""

    search_units: int
    """One for each started hundred documents."""


class RerankMeta(AnswerModel):
    """Metadata of the response."""

    api_version: ApiVersion
    """Version of the API."""
    billed_units: SearchUnits
    """Billing units of the request."""


class RerankAnswer(AnswerModel):
    """The documents by score, the best first; equal scores keep the order of the request."""

    id: str
    """Id of the response."""
    results: list[Result]
    """The documents and their scores."""
    meta: RerankMeta
    """Metadata of the response."""
    model: str
    """Id of the model that answered, as in Jina's and vLLM's responses."""
    usage: Usage
    """Token counts, as in Jina's and vLLM's responses."""


class ErrorAnswer(AnswerModel):
    """Cohere's error body."""

    message: str
    """What was wrong and what to change."""
    detail: str
    """The same message, for Jina's clients."""
