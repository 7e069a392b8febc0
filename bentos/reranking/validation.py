"""Validates reranking requests against the service's limits and the model. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bentos.models.tokens import TextTooLongError
from bentos.reranking.model import EncodedQuery, Query
from bentos.reranking.settings import RerankingSettings
from torchless.contracts.errors import TorchlessError, input_too_large, invalid_input
from torchless.contracts.field_path import FieldPath


def check_queries(queries: Sequence[Query], settings: RerankingSettings) -> int:
    """Checks the number and the lengths of queries and documents, and returns their total number of characters.

    Raises:
        TorchlessError: INVALID_INPUT or INPUT_TOO_LARGE, naming the field.
    """
    if not queries:
        raise invalid_input("queries", "must not be empty")
    if len(queries) > settings.max_queries:
        raise input_too_large("queries", f"hold {len(queries)} queries; the maximum is {settings.max_queries}")
    count = sum(len(query.documents) for query in queries)
    if count > settings.max_documents:
        raise input_too_large("queries", f"hold {count} documents; the maximum is {settings.max_documents}")
    characters = 0
    for number, query in enumerate(queries):
        if not query.documents:
            raise invalid_input(("queries", number, "documents"), "must not be empty")
        if not query.text:
            raise invalid_input(("queries", number, "query"), "must not be empty")
        characters += len(query.text) + sum(map(len, query.documents))
    return characters


def check_characters(queries: Sequence[Query], settings: RerankingSettings) -> None:
    """Checks the lengths of queries and documents all of which are tokenized.

    Raises:
        TorchlessError: INPUT_TOO_LARGE, naming the field.
    """
    characters = 0
    for number, query in enumerate(queries):
        characters += _check_text(("queries", number, "query"), query.text, settings.max_query_characters)
        for index, text in enumerate(query.documents):
            path = ("queries", number, "documents", index)
            characters += _check_text(path, text, settings.max_document_characters)
    most = settings.max_request_characters
    if characters > most:
        raise input_too_large(
            "queries", f"hold {characters} characters in total; the maximum without truncation is {most}"
        )


def text_too_long(error: TextTooLongError, query: Query, number: int) -> TorchlessError:
    """The error for the caller about a text of the query at index `number`.

    Args:
        error: The error, with the text.
        query: The query as in the request.
        number: Its index in the request.
    """
    if error.text in query.documents:
        return input_too_large(("queries", number, "documents", query.documents.index(error.text)), str(error))
    return input_too_large(("queries", number, "query"), str(error))


def check_lengths(query: Query, encoded: EncodedQuery, number: int, most: int) -> None:
    """Checks that a query and its documents have tokens, and no more than the model reads.

    Args:
        query: The query as in the request.
        encoded: The query with its distinct documents.
        number: Index of the query in the request.
        most: Most tokens that the model reads.

    Raises:
        TorchlessError: INVALID_INPUT or INPUT_TOO_LARGE, naming the query or the document.
    """
    if encoded.query_tokens > most:
        raise input_too_large(
            ("queries", number, "query"),
            f"has {encoded.query_tokens} tokens; the model reads at most {most}; shorten it",
        )
    for text, windows in zip(dict.fromkeys(query.documents), encoded.documents, strict=True):
        path = ("queries", number, "documents", query.documents.index(text))
        if not windows[0].ids:
            raise invalid_input(path, "has no tokens in the model's vocabulary")
        if not (windows[0].type_ids or windows[0].query_ids):
            raise invalid_input(("queries", number, "query"), "has no tokens in the model's vocabulary")
        if (tokens := len(windows[0].ids)) > most:
            raise input_too_large(
                path,
                f"has {tokens} tokens as input of the model, which reads at most {most}; shorten or truncate it",
            )


def _check_text(path: FieldPath, text: str, longest: int) -> int:
    if len(text) > longest:
        raise input_too_large(path, f"has {len(text)} characters; the maximum without truncation is {longest}")
    return len(text)
