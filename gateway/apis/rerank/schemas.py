"""Fields shared by the rerank requests of Cohere, Jina, vLLM and infinity, and `/rerank` with `documents`.

Sources: https://docs.cohere.com/reference/rerank, https://jina.ai/reranker, vLLM's
vllm/entrypoints/pooling/scoring/protocol.py, infinity's libs/infinity_emb/infinity_emb/fastapi_schemas/pymodels.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.apis.field_types import STOPS_AT_FIRST_ERROR, AnswerModel, NullIsAbsent, OneMessage, RequestModel, Text
from gateway.apis.openai.schemas import ErrorDetail, Usage
from gateway.apis.tei import schemas as tei

Document = Annotated[
    Text | dict[str, Any],
    Field(union_mode="left_to_right"),
    OneMessage("must be a text or an object that holds its text"),
]
"""A document: a text, or an object with texts."""
Documents = Annotated[list[Document], STOPS_AT_FIRST_ERROR, Field(json_schema_extra={"minItems": 1})]
"""Several documents."""
FieldNames = Annotated[list[Text], STOPS_AT_FIRST_ERROR, Field(min_length=1, max_length=64)]
"""Names of fields of a document."""


class ScoringFields(RequestModel):
    """Fields that decide how documents are scored."""

    model: Annotated[str, *NullIsAbsent] = ""
    """Model id or alias. Absent: the default model."""
    max_tokens_per_doc: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Most tokens that are read of a document. Absent: as the model is configured."""
    raw_scores: bool | None = None
    """infinity: return raw scores instead of scores from 0 to 1."""
    use_activation: Annotated[bool, *NullIsAbsent] = True
    """vLLM: false means raw scores."""
    activation: Annotated[bool, *NullIsAbsent] = True
    """vLLM: older name of `use_activation`."""
    softmax: Annotated[bool, *NullIsAbsent] = True
    """vLLM: oldest name of `use_activation`."""
    truncate_prompt_tokens: Literal[-1] | None = None
    """vLLM: -1 truncates documents at the model's maximum length. Other numbers are not supported, because they count
    the query too; use `max_tokens_per_doc`."""
    truncation_side: Annotated[Literal["left", "right"], *NullIsAbsent] = "right"
    """vLLM: which end `truncate_prompt_tokens` truncates."""


class RankingFields(ScoringFields):
    """Documents to rerank, and the form of the response."""

    query: Text
    """The query."""
    documents: Documents
    """The documents, as texts or as objects with `text`."""
    rank_fields: FieldNames | None = None
    """Fields of an object that make up its text, joined by line breaks in this order. Missing fields are skipped.
    Absent: `text`."""
    return_documents: bool | None = None
    """Return each document with its score."""


class RerankRequest(RankingFields):
    """Documents to rerank, in the form of Jina, vLLM and infinity."""

    top_n: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """Number of best documents to return. Absent, 0 or more than there are: all."""


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
