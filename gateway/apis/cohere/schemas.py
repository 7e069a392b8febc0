"""Cohere's embed and rerank APIs, versions 1 and 2, as far as they concern texts.

Source: https://docs.cohere.com/reference/embed and https://docs.cohere.com/v1/reference/embed,
https://docs.cohere.com/reference/rerank and https://docs.cohere.com/v1/reference/rerank
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from gateway.apis.field_types import STOPS_AT_FIRST_ERROR, AnswerModel, NullIsAbsent, RequestModel, Texts
from gateway.apis.openai.schemas import Usage
from gateway.apis.rerank.schemas import RankingFields, Result

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
EmbeddingTypes = Annotated[
    list[EmbeddingType], STOPS_AT_FIRST_ERROR, Field(min_length=1, max_length=len(get_args(EmbeddingType)))
]


class _EmbedFields(RequestModel):
    model: Annotated[str, *NullIsAbsent] = ""
    """Id of a model, or one of the configured aliases. Absent: the default model."""
    input_type: Annotated[Literal["search_query", "search_document", "classification", "clustering"], *NullIsAbsent] = (
        "classification"
    )
    """What the inputs are for: picks the model's prompt. Images are not embedded here."""
    truncate: Annotated[Literal["NONE", "START", "END"], *NullIsAbsent] = "END"
    """Which end of an over-long input is cut; NONE: refuse it."""


class EmbedV1Request(_EmbedFields):
    """Version 1."""

    texts: Texts
    """The inputs."""
    embedding_types: EmbeddingTypes | None = None
    """Forms to answer in. Absent: one list of float vectors."""


class TextContent(RequestModel):
    """One part of a mixed input."""

    type: Literal["text"]
    """Only text is embedded here."""
    text: str
    """The text. Empty ones are taken beside others that are not."""


class MixedInput(RequestModel):
    """An input made of parts; their texts are joined by line breaks."""

    content: Annotated[list[TextContent], STOPS_AT_FIRST_ERROR, Field(min_length=1, max_length=1024)]
    """The parts."""


class EmbedV2Request(_EmbedFields):
    """Version 2. One of `texts` and `inputs` is given."""

    texts: Texts | None = None
    """The inputs."""
    inputs: Annotated[list[MixedInput], STOPS_AT_FIRST_ERROR, Field(json_schema_extra={"minItems": 1})] | None = None
    """The inputs, in Cohere's form for mixed content."""
    embedding_types: Annotated[EmbeddingTypes, *NullIsAbsent] = Field(default=["float"])
    """Forms to answer in."""
    max_tokens: None = None
    """Not supported: inputs are cut where the model stops reading."""
    output_dimension: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """Leading dimensions to keep, where the model supports it. Absent or 0: all."""


class ApiVersion(AnswerModel):
    """Version of the API."""

    version: str
    """`1` or `2`."""


class BilledUnits(AnswerModel):
    """What the request cost."""

    input_tokens: int
    """Tokens that the model read."""


class Meta(AnswerModel):
    """About the answer."""

    api_version: ApiVersion
    """Version of the API."""
    billed_units: BilledUnits
    """What the request cost."""


class EmbeddingsByType(AnswerModel):
    """The vectors in each form that was asked for, in the order of the inputs."""

    float_: list[list[float]] | None = Field(default=None, alias="float")
    """float32."""
    int8: list[list[int]] | None = None
    """-128 to 127; see `gateway.apis.cohere.quantization`."""
    uint8: list[list[int]] | None = None
    """0 to 255."""
    binary: list[list[int]] | None = None
    """One bit a dimension, eight in a byte, as -128 to 127."""
    ubinary: list[list[int]] | None = None
    """One bit a dimension, eight in a byte, as 0 to 255."""
    base64: list[str] | None = None
    """base64 of little-endian float32."""


class EmbedAnswer(AnswerModel):
    """The vectors; a plain list of float vectors where version 1 is asked for no forms."""

    id: str
    """Id of the request."""
    embeddings: EmbeddingsByType | list[list[float]]
    """The vectors."""
    texts: list[str]
    """The inputs."""
    meta: Meta
    """About the answer."""
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
    """Which of the two forms `embeddings` has."""


class RerankRequest(RankingFields):
    """Documents to put in order. Both versions take the same, and what Jina and vLLM take on the same routes."""

    top_n: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """How many of the best to answer; more than there are is all of them. Absent: all."""
    max_chunks_per_doc: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Taken and not used: the reranking service's configuration says how long documents are read."""


class SearchUnits(AnswerModel):
    """What the request cost."""

    search_units: int
    """One for each hundred documents begun."""


class RerankMeta(AnswerModel):
    """About the answer."""

    api_version: ApiVersion
    """Version of the API."""
    billed_units: SearchUnits
    """What the request cost."""


class RerankAnswer(AnswerModel):
    """The documents in order, the best first; of equal scores the one sent first."""

    id: str
    """Id of the answer."""
    results: list[Result]
    """The order."""
    meta: RerankMeta
    """About the answer."""
    model: str
    """Id of the model that scored, as Jina and vLLM answer it."""
    usage: Usage
    """What the model read, as Jina and vLLM answer it."""


class ErrorAnswer(AnswerModel):
    """Cohere's error body."""

    message: str
    """What was wrong and what to change."""
    detail: str
    """The same, as Jina's clients read it."""
