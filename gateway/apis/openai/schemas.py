"""OpenAI's embeddings and models API, as far as it concerns embeddings, with the fields of Jina, vLLM and infinity.

Sources: https://platform.openai.com/docs/api-reference/embeddings; for the others see `gateway.apis.openai.fields`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.apis.field_types import (
    AnswerModel,
    Inputs,
    NullIsAbsent,
    OneMessage,
    OnlyFalse,
    RequestModel,
)
from torchless.clients.embedding import InputType

EmbeddingType = Literal["float", "base64", "binary", "ubinary"]
OneEmbeddingType = Annotated[
    EmbeddingType | Annotated[list[EmbeddingType], Field(min_length=1, max_length=1)],
    OneMessage("must be one of float, base64, binary and ubinary; lists of several types are not supported"),
]
Task = Literal["retrieval.query", "retrieval.passage", "text-matching", "classification", "separation", "clustering"]
OnlyTrue = Annotated[Literal[True], OneMessage("false is not supported")]


class EmbeddingsRequest(RequestModel):
    """Inputs to embed, and the form of the response."""

    input: Inputs
    """One input or several. Token ids are read as cl100k_base unless the gateway is configured otherwise."""
    model: Annotated[str, *NullIsAbsent] = ""
    """Model id or alias. Absent: the default model."""
    encoding_format: Annotated[Literal["float", "base64"], *NullIsAbsent] = "float"
    """Vectors as numbers, or as base64 of little-endian float32."""
    dimensions: Annotated[int, Field(ge=0, le=2**31 - 1), *NullIsAbsent] = 0
    """Leading dimensions to keep, if the model supports it. Absent or 0: all."""
    embedding_type: OneEmbeddingType | None = None
    """Jina: form of the vectors, in place of `encoding_format`; `binary` and `ubinary` have one bit for each dimension,
    as in Cohere's API."""
    normalized: Annotated[bool, *NullIsAbsent] = True
    """Jina: scale each vector to length 1."""
    use_activation: Annotated[bool, *NullIsAbsent] = True
    """vLLM: scale each vector to length 1."""
    normalize: Annotated[bool, *NullIsAbsent] = True
    """vLLM: older name of `use_activation`."""
    task: Annotated[Task, *NullIsAbsent] = "text-matching"
    """Jina: purpose of the inputs; `retrieval.query` and `retrieval.passage` select prompts of the model."""
    input_type: Literal["query", "document", "passage"] | None = None
    """Jina: purpose of the inputs, as `task`."""
    modality: Annotated[Literal["text"], *NullIsAbsent] = "text"
    """infinity: only `text` is supported."""
    truncate: bool | None = None
    """Jina: truncate inputs longer than the model's maximum length; false: refuse them. Absent: as the
    gateway is configured."""
    truncate_prompt_tokens: Literal[-1] | None = None
    """vLLM: -1 truncates inputs at the model's maximum length; other numbers are not supported. Absent: as
    `truncate` says."""
    truncation_side: Annotated[Literal["left", "right"], *NullIsAbsent] = "right"
    """vLLM: which end is truncated."""
    late_chunking: Annotated[OnlyFalse, *NullIsAbsent] = False
    """Jina: not supported."""
    return_multivector: Annotated[OnlyFalse, *NullIsAbsent] = False
    """Jina: not supported; `/embed_all` returns a vector for each token."""
    return_tokenized_input: Annotated[OnlyFalse, *NullIsAbsent] = False
    """Jina: not supported; `/tokenize` returns the tokens."""
    messages: Annotated[None, OneMessage("is not supported; send texts in input")] = None
    """vLLM: chats are not supported."""
    add_special_tokens: Annotated[OnlyTrue, *NullIsAbsent] = True
    """vLLM: only true is supported."""
    padding: Annotated[Literal["do_not_pad"], *NullIsAbsent] = "do_not_pad"
    """vLLM: only `do_not_pad` is supported."""
    embed_dtype: Annotated[Literal["float32"], *NullIsAbsent] = "float32"
    """vLLM: type of the numbers in base64; only `float32` is supported."""
    endianness: Annotated[Literal["native", "little"], *NullIsAbsent] = "little"
    """vLLM: byte order of the numbers in base64; only little-endian is supported."""

    @property
    def form(self) -> EmbeddingType:
        """Form of the vectors in the response."""
        if self.embedding_type is None:
            return self.encoding_format
        return self.embedding_type if isinstance(self.embedding_type, str) else self.embedding_type[0]

    @property
    def purpose(self) -> InputType:
        """Purpose of the inputs."""
        if "query" in (self.input_type, self.task.removeprefix("retrieval.")):
            return InputType.QUERY
        if self.input_type is not None or self.task == "retrieval.passage":
            return InputType.DOCUMENT
        return InputType.UNSPECIFIED


class Embedding(AnswerModel):
    """One vector."""

    object: Literal["embedding"]
    """Always `embedding`."""
    index: int
    """Position of the input."""
    embedding: list[float] | str
    """The vector, as numbers, packed bits or base64."""


class Usage(AnswerModel):
    """Tokens that the model read, with special tokens and prompt."""

    prompt_tokens: int
    """Tokens of all inputs."""
    total_tokens: int
    """The same number."""


class EmbeddingsAnswer(AnswerModel):
    """The vectors, in the order of the inputs."""

    object: Literal["list"]
    """Always `list`."""
    data: list[Embedding]
    """One vector for each input."""
    model: str
    """Id of the model that answered."""
    usage: Usage
    """Token counts."""


class Model(AnswerModel):
    """A served model."""

    id: str
    """Its id, or an alias."""
    object: Literal["model"]
    """Always `model`."""
    created: int
    """When it became ready, in seconds since the Unix epoch."""
    owned_by: str
    """Name of the server."""
    root: str
    """Id of the model that an alias stands for; otherwise its id."""
    capabilities: list[Literal["embed", "rerank"]]
    """What it can do."""
    revisions: dict[Literal["embed", "rerank"], str]
    """For each capability, the fingerprint of what decides the results: weights, tokenizer, prompts, dtype, maximum
    length and so on. It changes whenever they do."""


class ModelsAnswer(AnswerModel):
    """The served models, the default model first."""

    object: Literal["list"]
    """Always `list`."""
    data: list[Model]
    """One entry for each model."""


class ErrorDetail(AnswerModel):
    """What went wrong."""

    message: str
    """For people: what was wrong and what to change."""
    type: str
    """OpenAI's type of the error, for instance `invalid_request_error`."""
    param: str | None
    """The field at fault."""
    code: str | None
    """For programs, for instance `model_not_found`."""


class ErrorAnswer(AnswerModel):
    """OpenAI's error body."""

    error: ErrorDetail
    """What went wrong."""
