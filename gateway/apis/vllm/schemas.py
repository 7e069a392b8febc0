"""vLLM's score API: pairs of texts.

Source: vLLM's vllm/entrypoints/pooling/scoring/protocol.py
"""

from __future__ import annotations

from typing import Literal

from gateway.apis.field_types import AnswerModel, TextInputs
from gateway.apis.openai.schemas import Usage
from gateway.apis.rerank.schemas import ScoringFields


class ScoreRequest(ScoringFields):
    """Pairs to score: one query with each document, or each query with the document at the same position.

    The two lists have one of four pairs of names.
    """

    text_1: TextInputs | None = None
    """The queries: one, or as many as in `text_2`."""
    text_2: TextInputs | None = None
    """The documents."""
    queries: TextInputs | None = None
    """Another name of `text_1`, used with `documents` or `items`."""
    documents: TextInputs | None = None
    """Another name of `text_2`."""
    items: TextInputs | None = None
    """Another name of `text_2`."""
    data_1: TextInputs | None = None
    """Another name of `text_1`, used with `data_2`."""
    data_2: TextInputs | None = None
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
