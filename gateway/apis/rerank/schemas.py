"""What the reranking requests of Cohere, Jina, vLLM and infinity share, and `/rerank` with documents.

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
"""A document, as a text or as an object with texts."""
Documents = Annotated[list[Document], STOPS_AT_FIRST_ERROR, Field(json_schema_extra={"minItems": 1})]
"""Several documents."""
FieldNames = Annotated[list[Text], STOPS_AT_FIRST_ERROR, Field(min_length=1, max_length=64)]
"""Names of fields of a document."""


class ScoringFields(RequestModel):
    """How documents are scored."""

    model: Annotated[str, *NullIsAbsent] = ""
    """Id of a model, or one of the configured aliases. Absent: the default model."""
    max_tokens_per_doc: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Tokens of a document that are read at most. Absent: as the model is configured."""
    raw_scores: bool | None = None
    """infinity's: scores as the model computes them, instead of ones from 0 to 1."""
    use_activation: Annotated[bool, *NullIsAbsent] = True
    """vLLM's: false is the same as `raw_scores`."""
    activation: Annotated[bool, *NullIsAbsent] = True
    """vLLM's older name of `use_activation`."""
    softmax: Annotated[bool, *NullIsAbsent] = True
    """vLLM's oldest name of `use_activation`."""
    truncate_prompt_tokens: Literal[-1] | None = None
    """vLLM's: -1 cuts documents where the model stops reading. Other numbers are not supported, because they count the
    query too: use `max_tokens_per_doc`."""
    truncation_side: Annotated[Literal["left", "right"], *NullIsAbsent] = "right"
    """vLLM's: which end `truncate_prompt_tokens` cuts."""


class RankingFields(ScoringFields):
    """What is put in order, and how it is answered."""

    query: Text
    """What the documents are compared with."""
    documents: Documents
    """The documents, as texts or as objects with `text`."""
    rank_fields: FieldNames | None = None
    """Of a document that is an object, the fields that make its text, joined by line breaks in this order; those that
    it does not have are passed over. Absent: `text`."""
    return_documents: bool | None = None
    """Answer each document beside its score."""


class RerankRequest(RankingFields):
    """Documents to put in order, in the form of Jina, vLLM and infinity."""

    top_n: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """How many of the best to answer; more than there are is all of them. Absent or 0: all."""


class Result(AnswerModel):
    """One document's score."""

    index: int
    """Place of the document among those that were sent."""
    relevance_score: float
    """The higher, the better; from 0 to 1 unless the request asks for raw scores."""
    document: dict[str, str] | str | None = None
    """The document, where it is answered: an object with `text`; a text where `raw_scores` is given, as in infinity's
    requests."""


class RerankAnswer(AnswerModel):
    """The documents in order, the best first; of equal scores the one sent first."""

    object: Literal["rerank"]
    """Always `rerank`."""
    id: str
    """Id of the answer."""
    created: int
    """When it was made, in seconds since the Unix epoch."""
    model: str
    """Id of the model that scored."""
    results: list[Result]
    """The order."""
    usage: Usage
    """What the model read."""


class ErrorAnswer(AnswerModel):
    """The error body of `/rerank` with documents."""

    error: ErrorDetail
    """What went wrong, as vLLM and infinity say it."""
    detail: str
    """The message once more, as Jina's clients read it."""


class UndecidedErrorAnswer(tei.ErrorAnswer):
    """The error body of `/rerank` where the body was not read, or is of no known form."""

    detail: str
    """The message once more, as Jina's clients read it."""
