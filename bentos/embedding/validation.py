"""Validates embedding requests against the service's limits and the model. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bentos.embedding.model import ModelInfo
from bentos.embedding.settings import EmbeddingSettings
from bentos.models.tokens import EncodedText
from torchless.contracts.errors import input_too_large, invalid_input

_MIB = 1024 * 1024
_MESSAGE_OVERHEAD = 64 * 1024
"""Most bytes of a response besides its vectors."""


def check_count(field: str, count: int, settings: EmbeddingSettings) -> None:
    """Checks the number of inputs.

    Raises:
        TorchlessError: INVALID_INPUT or INPUT_TOO_LARGE.
    """
    if count == 0:
        raise invalid_input(field, "must not be empty")
    if count > settings.max_inputs:
        raise input_too_large(field, f"hold {count} inputs; the maximum is {settings.max_inputs}")


def check_characters(texts: Sequence[str], settings: EmbeddingSettings) -> None:
    """Checks the lengths of texts of which all is tokenized.

    Raises:
        TorchlessError: INPUT_TOO_LARGE, naming the text.
    """
    total, most = sum(map(len, texts)), settings.max_request_characters
    if total > most:
        raise input_too_large("texts", f"hold {total} characters in total; the maximum without truncation is {most}")
    for index, text in enumerate(texts):
        if len(text) > settings.max_input_characters:
            raise input_too_large(
                ("texts", index),
                f"has {len(text)} characters; the maximum without truncation is {settings.max_input_characters}",
                index=str(index),
            )


def check_token_ids(token_ids: Sequence[Sequence[int]], info: ModelInfo, settings: EmbeddingSettings) -> None:
    """Checks that the model has every token id.

    Raises:
        TorchlessError: INVALID_INPUT or INPUT_TOO_LARGE, naming the input and position.
    """
    check_count("token_ids", len(token_ids), settings)
    for index, ids in enumerate(token_ids):
        if not ids:
            raise invalid_input(("token_ids", index), "must not be empty", index=str(index))
        if (largest := max(ids)) >= info.vocabulary_size:
            raise invalid_input(
                ("token_ids", index, ids.index(largest)),
                f"is {largest}; token ids must be below {info.vocabulary_size}",
                index=str(index),
            )


def check_size(field: str, size: int, settings: EmbeddingSettings) -> None:
    """Checks the size of a request to Tokenize or Detokenize, in characters or token ids.

    Raises:
        TorchlessError: INPUT_TOO_LARGE.
    """
    most = settings.max_tokenize_characters
    if size > most:
        raise input_too_large(field, f"have a total length of {size}; the maximum per call is {most}; send fewer")


def check_dimensions(dimensions: int, info: ModelInfo) -> None:
    """Checks that the model supports vectors of that length; 0 stands for the full length.

    Raises:
        TorchlessError: INVALID_INPUT.
    """
    shorter = info.matryoshka_dimensions
    if dimensions in (0, info.dimensions, *shorter):
        return
    if not shorter:
        raise invalid_input(
            "dimensions", f"the model's vectors have {info.dimensions} dimensions and cannot be shortened; omit it"
        )
    choices = ", ".join(str(each) for each in (info.dimensions, *shorter))
    raise invalid_input("dimensions", f"{dimensions} is not supported; choose one of: {choices}")


def check_prompt(name: str, info: ModelInfo) -> None:
    """Checks that the model has a prompt with that name.

    Raises:
        TorchlessError: INVALID_INPUT.
    """
    if name not in info.prompts:
        names = ", ".join(sorted(info.prompts)) or "none"
        raise invalid_input("prompt_name", f"the model has no such prompt; its prompts are: {names}")


def check_lengths(encoded: Sequence[EncodedText], info: ModelInfo) -> None:
    """Checks that every input has tokens, and no more than the model reads.

    Raises:
        TorchlessError: INVALID_INPUT or INPUT_TOO_LARGE, naming the text.
    """
    for index, text in enumerate(encoded):
        if not text.ids:
            raise invalid_input(("texts", index), "has no tokens in the model's vocabulary", index=str(index))
        if len(text.ids) > info.max_tokens:
            raise input_too_large(
                ("texts", index),
                f"has {len(text.ids)} tokens; the model reads at most {info.max_tokens}; shorten or truncate it",
                index=str(index),
            )


def check_message_size(rows: int, info: ModelInfo, settings: EmbeddingSettings) -> None:
    """Checks that `rows` vectors fit into one response.

    Raises:
        TorchlessError: INPUT_TOO_LARGE.
    """
    row_bytes = info.dimensions * 4
    most = settings.max_message_mib * _MIB - _MESSAGE_OVERHEAD
    if rows * row_bytes > most:
        raise input_too_large(
            "texts", f"hold {rows} tokens; the vectors of at most {most // row_bytes} fit into a response; send fewer"
        )
