"""The API of Hugging Face's text-embeddings-inference, as far as it concerns embeddings.

Source: https://github.com/huggingface/text-embeddings-inference, router/src/http/types.rs and docs/openapi.json.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.apis.field_types import AnswerModel, IdInputs, Inputs, NullIsAbsent, RequestModel, Text, TextInputs, Texts

Direction = Literal["Left", "Right", "left", "right"]


class TruncationFields(RequestModel):
    """Fields of every request that embeds."""

    truncate: bool | None = None
    """Cut inputs that are longer than the model reads; false: refuse them. Absent: as the gateway is configured."""
    truncation_direction: Annotated[Direction, *NullIsAbsent] = "Right"
    """Which end is cut."""
    prompt_name: Annotated[str, *NullIsAbsent] = ""
    """One of the model's prompts, put before each input. Absent: none but the model's default."""


class EmbedRequest(TruncationFields):
    """What to embed, and how."""

    inputs: Inputs
    """One input or several; token ids are of the model's own vocabulary."""
    normalize: Annotated[bool, *NullIsAbsent] = True
    """Scale each vector to length 1."""
    dimensions: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """Leading dimensions to keep, where the model supports it. Absent or 0: all."""


class EmbedAllRequest(TruncationFields):
    """What to embed token by token."""

    inputs: Inputs
    """One input or several; token ids are of the model's own vocabulary."""


class SimilarityInput(RequestModel):
    """What to compare."""

    source_sentence: Text
    """The text that the others are compared with."""
    sentences: Texts
    """The others."""


class SimilarityRequest(RequestModel):
    """What to compare, and how."""

    inputs: SimilarityInput
    """The texts."""
    parameters: Annotated[TruncationFields, *NullIsAbsent] = TruncationFields()
    """How they are embedded."""


class TokenizeRequest(RequestModel):
    """What to tokenize."""

    inputs: TextInputs
    """One text or several."""
    add_special_tokens: Annotated[bool, *NullIsAbsent] = True
    """Add the model's special tokens."""
    prompt_name: Annotated[str, *NullIsAbsent] = ""
    """One of the model's prompts, put before each text."""


class DecodeRequest(RequestModel):
    """Token ids to turn into text."""

    ids: IdInputs
    """One sequence of ids or several, of the model's own vocabulary."""
    skip_special_tokens: Annotated[bool, *NullIsAbsent] = True
    """Leave special tokens out."""


class RerankRequest(RequestModel):
    """Texts to put in order."""

    query: Text
    """What the texts are compared with."""
    texts: Texts
    """The texts."""
    truncate: bool | None = None
    """Cut texts that are longer than the model reads; false: refuse them. Absent: as the gateway is configured."""
    truncation_direction: Annotated[Direction, *NullIsAbsent] = "Right"
    """Which end is cut."""
    raw_scores: Annotated[bool, *NullIsAbsent] = False
    """Scores as the model computes them, instead of ones from 0 to 1."""
    return_text: Annotated[bool, *NullIsAbsent] = False
    """Answer each text beside its score."""
    top_n: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """How many of the best to answer, for litellm's users; more than there are is all of them. Absent or 0: all."""


class Rank(AnswerModel):
    """One text's score."""

    index: int
    """Place of the text among those that were sent."""
    score: float
    """The higher, the better; from 0 to 1 unless the request asks for raw scores."""
    text: str | None = None
    """The text, where the request asks for it."""


class Token(AnswerModel):
    """One token."""

    id: int
    """Its id."""
    text: str
    """Its text."""
    special: bool
    """Whether it is a special token."""
    start: int | None
    """First character in the text; null for special tokens."""
    stop: int | None
    """Character after the last; null for special tokens."""


class Pooling(AnswerModel):
    """How tokens become one vector."""

    pooling: str
    """For instance `mean`."""


class ModelType(AnswerModel):
    """What kind of model it is."""

    embedding: Pooling
    """It embeds."""


class Info(AnswerModel):
    """The model that the routes of this family use."""

    model_id: str
    """Its id."""
    model_sha: str | None
    """Its pinned revision."""
    model_dtype: str
    """Type of its weights."""
    model_type: ModelType
    """Its kind."""
    max_concurrent_requests: int
    """Requests that one worker of the gateway works on at once."""
    max_input_length: int
    """Longest input in tokens."""
    max_batch_tokens: int
    """Padded tokens in one batch."""
    max_batch_requests: int | None
    """Always null: batches are limited by tokens."""
    max_client_batch_size: int
    """Most inputs in one request."""
    auto_truncate: bool
    """Whether over-long inputs are cut where a request does not say."""
    tokenization_workers: int
    """0: the embedding service does not say."""
    version: str
    """Version of the gateway."""
    sha: str | None
    """Always null."""
    docker_label: str | None
    """Always null."""


class ErrorAnswer(AnswerModel):
    """The error body of this family."""

    error: str
    """What was wrong and what to change."""
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]
    """Its class."""
