"""The API of Hugging Face's text-embeddings-inference, as far as it concerns embeddings.

Source: https://github.com/huggingface/text-embeddings-inference, router/src/http/types.rs and docs/openapi.json.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.apis.field_types import (
    AnswerModel,
    IdInputs,
    Inputs,
    MaybeEmptyTexts,
    NullIsAbsent,
    RequestModel,
    Text,
    TextInputs,
    Texts,
)

Direction = Literal["Left", "Right", "left", "right"]


class TruncationFields(RequestModel):
    """Fields of every embedding request."""

    truncate: bool | None = None
    """Truncate inputs longer than the model's maximum length; false: refuse them. Absent: as the gateway is
    configured."""
    truncation_direction: Annotated[Direction, *NullIsAbsent] = "Right"
    """Which end is truncated."""
    prompt_name: Annotated[str, *NullIsAbsent] = ""
    """Name of a prompt of the model, prepended to each input. Absent: the model's default prompt."""


class EmbedRequest(TruncationFields):
    """Inputs to embed."""

    inputs: Inputs
    """One input or several; token ids belong to the model's vocabulary."""
    normalize: Annotated[bool, *NullIsAbsent] = True
    """Scale each vector to length 1."""
    dimensions: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """Leading dimensions to keep, if the model supports it. Absent or 0: all."""


class EmbedAllRequest(TruncationFields):
    """Inputs to embed token by token."""

    inputs: Inputs
    """One input or several; token ids belong to the model's vocabulary."""


class SimilarityInput(RequestModel):
    """Texts to compare."""

    source_sentence: Text
    """The text to compare with."""
    sentences: Texts
    """The texts to compare with it."""


class SimilarityRequest(RequestModel):
    """Texts to compare, and how to embed them."""

    inputs: SimilarityInput
    """The texts."""
    parameters: Annotated[TruncationFields, *NullIsAbsent] = TruncationFields()
    """How to embed them."""


class TokenizeRequest(RequestModel):
    """Texts to tokenize."""

    inputs: TextInputs
    """One text or several."""
    add_special_tokens: Annotated[bool, *NullIsAbsent] = True
    """Add the model's special tokens."""
    prompt_name: Annotated[str, *NullIsAbsent] = ""
    """Name of a prompt of the model, prepended to each text."""


class DecodeRequest(RequestModel):
    """Token ids to decode to text."""

    ids: IdInputs
    """One sequence of ids or several, of the model's vocabulary."""
    skip_special_tokens: Annotated[bool, *NullIsAbsent] = True
    """Omit special tokens."""


class RerankRequest(RequestModel):
    """Texts to rerank."""

    query: Text
    """The query."""
    texts: MaybeEmptyTexts
    """The texts."""
    truncate: bool | None = None
    """Truncate texts longer than the model's maximum length; false: refuse them. Absent: as the gateway is
    configured."""
    truncation_direction: Annotated[Direction, *NullIsAbsent] = "Right"
    """Which end is truncated."""
    raw_scores: Annotated[bool, *NullIsAbsent] = False
    """Return raw scores instead of scores from 0 to 1."""
    return_text: Annotated[bool, *NullIsAbsent] = False
    """Return each text with its score."""
    top_n: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """Number of best texts to return, for litellm. Absent, 0 or more than there are: all."""


class Rank(AnswerModel):
    """The score of one text."""

    index: int
    """Position of the text in the request."""
    score: float
    """The higher, the better; from 0 to 1 unless the request asks for raw scores."""
    text: str | None = None
    """The text, if `return_text` is true."""


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


class Labels(AnswerModel):
    """The labels of a classifier; a reranker has one."""

    id2label: dict[str, str]
    """Name of each label by its position."""
    label2id: dict[str, int]
    """Position of each label by its name."""


class Pooling(AnswerModel):
    """How tokens become one vector."""

    pooling: str
    """For instance `mean`."""


class ModelType(AnswerModel):
    """The kind of model: one of the fields is present."""

    embedding: Pooling | None = None
    """An embedding model."""
    reranker: Labels | None = None
    """A reranking model."""


class Info(AnswerModel):
    """The model that the routes of this family use."""

    model_id: str
    """Its id."""
    model_sha: str | None
    """Fingerprint of what decides its vectors: weights, tokenizer, prompts, dtype, maximum length and so on."""
    model_dtype: str
    """Type of its weights."""
    served_model_name: str
    """Its id again."""
    model_type: ModelType
    """Its kind."""
    max_concurrent_requests: int
    """Requests that one worker of the gateway handles at the same time."""
    max_input_length: int
    """Maximum length of an input, in tokens."""
    max_batch_tokens: int
    """Most tokens in one batch, with padding."""
    max_batch_requests: int | None
    """Always null: batches are limited by tokens."""
    max_client_batch_size: int
    """Most inputs in one request."""
    auto_truncate: bool
    """Default of `truncate`."""
    tokenization_workers: int
    """Always 0: the services do not report it."""
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
    """Type of the error."""
