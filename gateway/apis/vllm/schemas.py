"""vLLM's score API: pairs of texts.

Source: vLLM's vllm/entrypoints/pooling/scoring/protocol.py
"""

from __future__ import annotations

from typing import Literal

from gateway.apis.field_types import AnswerModel, TextInputs
from gateway.apis.openai.schemas import Usage
from gateway.apis.rerank.schemas import ScoringFields


class ScoreRequest(ScoringFields):
    """What to compare with what: one text with each of several, or each with the one beside it.

    The two sides have one of four pairs of names.
    """

    text_1: TextInputs | None = None
    """The queries; one, or as many as `text_2` holds."""
    text_2: TextInputs | None = None
    """The documents."""
    queries: TextInputs | None = None
    """Another name of `text_1`, beside `documents` or `items`."""
    documents: TextInputs | None = None
    """Another name of `text_2`."""
    items: TextInputs | None = None
    """Another name of `text_2`."""
    data_1: TextInputs | None = None
    """Another name of `text_1`, beside `data_2`."""
    data_2: TextInputs | None = None
    """Another name of `text_2`."""


class Score(AnswerModel):
    """The score of one pair."""

    index: int
    """Place of the pair."""
    object: Literal["score"]
    """Always `score`."""
    score: float
    """The higher, the better; from 0 to 1 unless the request asks for raw scores."""


class ScoreAnswer(AnswerModel):
    """The scores, in the order of the pairs."""

    id: str
    """Id of the answer."""
    object: Literal["list"]
    """Always `list`."""
    created: int
    """When it was made, in seconds since the Unix epoch."""
    model: str
    """Id of the model that scored."""
    data: list[Score]
    """One entry a pair."""
    usage: Usage
    """What the model read."""
