"""vLLM's score API: pairs of texts.

Source: vLLM's vllm/entrypoints/pooling/scoring/protocol.py
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.apis.field_types import STOPS_AT_FIRST_ERROR, AnswerModel, OneMessage
from gateway.apis.openai.schemas import Usage
from gateway.apis.rerank.schemas import Document, ScoringFields

Side = Annotated[
    Document | Annotated[list[Document], STOPS_AT_FIRST_ERROR, Field(json_schema_extra={"minItems": 1})],
    Field(union_mode="left_to_right"),
    OneMessage("must be a text, an object that holds its text, or a list of them"),
]
"""One or several texts of the pairs."""


class ScoreRequest(ScoringFields):
    """Pairs to score: one query with each document, or each query with the document at the same position.

    The two lists have one of four pairs of names. A text may be an object that holds it, as in `/rerank`.
    """

    text_1: Side | None = None
    """The queries: one, or as many as in `text_2`."""
    text_2: Side | None = None
    """The documents."""
    queries: Side | None = None
    """Another name of `text_1`, used with `documents` or `items`."""
    documents: Side | None = None
    """Another name of `text_2`."""
    items: Side | None = None
    """Another name of `text_2`."""
    data_1: Side | None = None
    """Another name of `text_1`, used with `data_2`."""
    data_2: Side | None = None
    """Another name of `text_2`."""


class Score(AnswerModel):
    """The score of one pair."""

    index: int
    """Position of the pair."""
    object: Literal["score"]
    """Always `score`."""
    score: float
    """The higher, the better; from 0 to 1 unless the request asks for raw scores."""


class ScoreAnswer(AnswerModel):
    """The scores, in the order of the pairs."""

    id: str
    """Id of the response."""
    object: Literal["list"]
    """Always `list`."""
    created: int
    """Time of the response, in seconds since the Unix epoch."""
    model: str
    """Id of the model that answered."""
    data: list[Score]
    """One entry for each pair."""
    usage: Usage
    """Token counts."""
