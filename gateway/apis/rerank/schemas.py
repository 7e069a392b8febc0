"""Fields shared by the rerank requests of Cohere, Jina, vLLM and infinity, and `/rerank` with `documents`.

Sources: https://docs.cohere.com/reference/rerank, https://jina.ai/reranker, vLLM's
vllm/entrypoints/pooling/scoring/protocol.py, infinity's libs/infinity_emb/infinity_emb/fastapi_schemas/pymodels.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from gateway.apis.field_types import (
    STOPS_AT_FIRST_ERROR,
    AnswerModel,
    LenientBool,
    LenientCount,
    NullIsAbsent,
    OneMessage,
    OnlyFalse,
    RequestModel,
    Text,
)
from gateway.apis.openai.schemas import ErrorDetail, Usage
from gateway.apis.tei import schemas as tei

_MESSAGE = OneMessage("must be a text or an object that holds its text")
Query = Annotated[Text | dict[str, Any], Field(union_mode="left_to_right"), _MESSAGE]
"""A text, or an object that holds it as `text` or as vLLM's `content`."""
Document = Annotated[str | dict[str, Any], Field(union_mode="left_to_right"), _MESSAGE]
"""As `Query`; it may be empty, and `rank_fields` may name the fields that hold its text."""


class _SingleIsList:
    """Shows in the OpenAPI document that a single document is accepted."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "string"}, {"type": "object"}]}


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str | dict) else given


Documents = Annotated[
    list[Document],
    STOPS_AT_FIRST_ERROR,
    Field(json_schema_extra={"minItems": 1}),
    BeforeValidator(_listed),
    _SingleIsList(),
]
"""One or several documents."""
FieldNames = Annotated[list[Text], STOPS_AT_FIRST_ERROR, Field(min_length=1, max_length=64)]
"""Names of fields of a document."""
NothingIn = Annotated[dict[str, Any], Field(max_length=0), OneMessage("is not supported")]
"""An object whose content changes the result, which no service here can do."""


class ScoringFields(RequestModel):
    """Fields that decide how documents are scored."""

    model: Annotated[str, *NullIsAbsent] = ""
    """Model id or alias. Absent: the default model."""
    max_tokens_per_doc: Annotated[LenientCount, *NullIsAbsent] = 0
    """Most tokens that are read of a document. Absent or 0: as the model is configured."""
    max_doc_length: Annotated[LenientCount, *NullIsAbsent] = 0
    """Jina: other name of `max_tokens_per_doc`."""
    truncation: LenientBool | None = None
    """Jina: truncate documents longer than the model's maximum length; false: refuse them. Absent: as the gateway and
    the model are configured."""
    raw_scores: LenientBool | None = None
    """infinity: return raw scores instead of scores from 0 to 1."""
    use_activation: Annotated[LenientBool, *NullIsAbsent] = True
    """vLLM: false means raw scores."""
    activation: Annotated[LenientBool, *NullIsAbsent] = True
    """vLLM: older name of `use_activation`."""
    softmax: Annotated[LenientBool, *NullIsAbsent] = True
    """vLLM: oldest name of `use_activation`."""
    truncate_prompt_tokens: Literal[-1] | None = None
    """vLLM: -1 truncates documents at the model's maximum length. Other numbers are not supported, because they count
    the query too; use `max_tokens_per_doc`."""
    truncation_side: Annotated[Literal["left", "right"], *NullIsAbsent] = "right"
    """vLLM: which end `truncate_prompt_tokens` truncates."""
    max_tokens_per_query: Annotated[LenientCount, Field(le=0), OneMessage("is not supported"), *NullIsAbsent] = 0
    """vLLM: not supported; only 0 is accepted."""
    padding: Annotated[Literal["do_not_pad"], *NullIsAbsent] = "do_not_pad"
    """vLLM: only `do_not_pad` is supported."""
    instruction: Annotated[None, OneMessage("is not supported; put it in the query")] = None
    """vLLM: not supported."""
    chat_template_kwargs: NothingIn | None = None
    """vLLM: not supported; only an empty object is accepted."""


class RerankRequest(ScoringFields):
    """Documents to rerank, and the form of the response."""

    query: Query
    """The query, as a text, or as an object with `text` or with vLLM's `content`."""
    documents: Documents
    """The documents, as texts or as objects with `text` or with vLLM's `content`."""
    top_n: Annotated[LenientCount, *NullIsAbsent] = 0
    """Number of best documents to return. Absent, 0 or more than there are: all."""
    rank_fields: FieldNames | None = None
    """Cohere: fields of an object that make up its text, joined by line breaks in this order. Missing fields are
    skipped. Absent: `text`."""
    return_documents: LenientBool | None = None
    """Return each document with its score."""
    return_embeddings: Annotated[OnlyFalse, *NullIsAbsent] = False
    """Jina: not supported."""
    max_chunks_per_doc: Annotated[None, OneMessage("is not supported; use max_tokens_per_doc")] = None
    """Cohere: not supported; `max_tokens_per_doc` limits how much of a document is read."""


class Result(AnswerModel):
    """The score of one document."""

    index: int
    """Position of the document in the request."""
    relevance_score: float
    """The higher, the better; from 0 to 1 unless the request asks for raw scores."""
    document: dict[str, str] | str | None = None
    """The document, if requested: an object with `text`, or a text if the request has `raw_scores`, as for infinity."""


class RerankAnswer(AnswerModel):
    """The documents by score, the best first; equal scores keep the order of the request."""

    object: Literal["rerank"]
    """Always `rerank`."""
    id: str
    """Id of the response."""
    created: int
    """Time of the response, in seconds since the Unix epoch."""
    model: str
    """Id of the model that answered."""
    results: list[Result]
    """The documents and their scores."""
    usage: Usage
    """Token counts."""


class ErrorAnswer(AnswerModel):
    """The error body of `/rerank` with `documents`."""

    error: ErrorDetail
    """What went wrong, for vLLM's and infinity's clients."""
    detail: str
    """The same message, for Jina's clients."""


class UndecidedErrorAnswer(tei.ErrorAnswer):
    """The error body of `/rerank` if the body was not read or has no known form."""

    detail: str
    """The same message, for Jina's clients."""
