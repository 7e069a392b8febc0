"""Converts rerank bodies of several API families to calls of the service, and results to responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.apis.rerank.schemas import RerankRequest, ScoringFields
from gateway.capabilities.reranking import Ranking
from gateway.http.exceptions import malformed
from gateway.routing import Call
from gateway.settings import LimitSettings
from torchless.clients.reranking import LongDocuments, Reranking, RerankOptions, ScoreForm
from torchless.contracts.field_path import FieldPath


async def rank_documents(body: RerankRequest, call: Call) -> tuple[list[str], Ranking]:
    """Ranks the documents of `body` by its query; returns their texts, and the ranking.

    Raises:
        MalformedRequestError: A query or a document has no text.
        TorchlessError: As the reranking service.
    """
    texts = texts_of(body)
    options = options_of(body, call.services.settings.limits)
    found = await call.services.reranker.rank(
        query_of(body), texts, options, call.context, field="documents", top_n=body.top_n
    )
    return texts, found


def options_of(body: ScoringFields, limits: LimitSettings) -> RerankOptions:
    """The scoring options of `body`; the limits say whether long documents are truncated if `body` does not."""
    raw = body.raw_scores or not (body.use_activation and body.activation and body.softmax)
    return RerankOptions(
        model=body.model,
        score_form=ScoreForm.RAW if raw else ScoreForm.UNIT,
        max_tokens_per_doc=body.max_tokens_per_doc or body.max_doc_length,
        long_documents=_long_documents(body, limits),
    )


def _long_documents(body: ScoringFields, limits: LimitSettings) -> LongDocuments:
    if body.truncate_prompt_tokens is not None:
        if body.truncation is False:
            raise malformed("truncation", "is false, but truncate_prompt_tokens asks for truncation; send one of them")
        return LongDocuments.CUT if body.truncation_side == "right" else LongDocuments.CUT_START
    if body.truncation is not None:
        return LongDocuments.CUT if body.truncation else LongDocuments.REFUSE
    return LongDocuments.AS_CONFIGURED if limits.truncate else LongDocuments.REFUSE


def text_of(document: str | Mapping[str, Any], path: FieldPath, fields: Sequence[str] = ()) -> str:
    """The text of a query or a document.

    Args:
        document: A text or an object.
        path: Its path in the request, for errors.
        fields: The object's fields that make up its text; none: `text`, or else vLLM's `content`.

    Raises:
        MalformedRequestError: It is an object without the fields of its text, or with a field that is not a text.
    """
    if isinstance(document, str):
        return document
    if not fields and document.get("text") is None and document.get("content") is not None:
        return _joined_parts(document["content"], (*path, "content"))
    parts = [(field, document[field]) for field in fields or ("text",) if document.get(field) is not None]
    if not parts:
        wanted = "any of the fields in rank_fields" if fields else "the field text"
        raise malformed(path, f"does not have {wanted}")
    for field, part in parts:
        if not isinstance(part, str):
            raise malformed((*path, field), "must be a text")
    return "\n".join(part for _, part in parts)


def _joined_parts(content: Any, path: FieldPath) -> str:
    """The texts of vLLM's content parts, joined by line breaks, as vLLM joins them."""
    if not isinstance(content, list) or not content:
        raise malformed(path, "must be a list of parts")
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise malformed((*path, index), 'must be {"type": "text", "text": ...}; only texts are supported')
    return "\n".join(part["text"] for part in content)


def query_of(body: RerankRequest) -> str:
    """The query; raises as `text_of`."""
    return text_of(body.query, ("query",))


def texts_of(body: RerankRequest) -> list[str]:
    """The text of each document; raises as `text_of`."""
    fields = body.rank_fields or ()
    return [
        document if isinstance(document, str) else text_of(document, ("documents", index), fields)
        for index, document in enumerate(body.documents)
    ]


def results_of(ranking: Ranking) -> Iterator[dict[str, Any]]:
    """Index and score of each document, the best first."""
    for index, score in zip(ranking.order, ranking.scores, strict=True):
        yield {"index": index, "relevance_score": score}


def results_with_documents(ranking: Ranking, body: RerankRequest, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """As `results_of`, with each document as an object: a text as its `text`, an object with its text fields."""
    for result in results_of(ranking):
        document = body.documents[result["index"]]
        yield {**result, "document": _texts_in(document, texts[result["index"]])}


def results_with_texts(ranking: Ranking, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """As `results_of`, with the compared text."""
    for result in results_of(ranking):
        yield {**result, "document": texts[result["index"]]}


def _texts_in(document: str | Mapping[str, Any], text: str) -> dict[str, str]:
    if isinstance(document, str):
        return {"text": text}
    return {name: part for name, part in document.items() if isinstance(part, str)} or {"text": text}


def usage_of(answer: Reranking) -> dict[str, int]:
    """The token counts of a response."""
    return {"prompt_tokens": answer.total_tokens, "total_tokens": answer.total_tokens}
