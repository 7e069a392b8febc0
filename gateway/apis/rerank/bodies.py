"""Converts rerank bodies of several API families to calls of the service, and results to responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.apis.rerank.schemas import RankingFields, ScoringFields
from gateway.capabilities.reranking import Ranking
from gateway.http.exceptions import malformed
from gateway.settings import GatewaySettings, LimitSettings
from torchless.clients.reranking import LongDocuments, Reranking, RerankOptions, ScoreForm
from torchless.contracts.field_path import FieldPath


def reranking_deadline(settings: GatewaySettings) -> float:
    """Default deadline of a rerank request, in seconds."""
    return settings.reranking.deadline_s


def options_of(body: ScoringFields, limits: LimitSettings) -> RerankOptions:
    """The scoring options of `body`; the limits say whether long documents are truncated if `body` does not."""
    raw = body.raw_scores or not (body.use_activation and body.activation and body.softmax)
    long = LongDocuments.AS_CONFIGURED if limits.truncate else LongDocuments.REFUSE
    if body.truncate_prompt_tokens is not None:
        long = LongDocuments.CUT if body.truncation_side == "right" else LongDocuments.CUT_START
    return RerankOptions(
        model=body.model,
        score_form=ScoreForm.RAW if raw else ScoreForm.UNIT,
        max_tokens_per_doc=body.max_tokens_per_doc or 0,
        long_documents=long,
    )


def texts_of(body: RankingFields) -> list[str]:
    """The text of each document.

    Raises:
        MalformedRequestError: A document is an object without the fields of its text, or with a field that is not a
            text.
    """
    fields = body.rank_fields or ["text"]
    return [
        document if isinstance(document, str) else _joined(document, fields, ("documents", index))
        for index, document in enumerate(body.documents)
    ]


def _joined(document: Mapping[str, Any], fields: Sequence[str], path: FieldPath) -> str:
    parts = [(field, document[field]) for field in fields if document.get(field) is not None]
    if not parts:
        wanted = "the field text" if fields == ["text"] else "any of the fields in rank_fields"
        raise malformed(path, f"does not have {wanted}")
    for field, part in parts:
        if not isinstance(part, str):
            raise malformed((*path, field), "must be a text")
    return "\n".join(part for _, part in parts)


def results_of(ranking: Ranking) -> Iterator[dict[str, Any]]:
    """Index and score of each document, the best first."""
    for index, score in zip(ranking.order, ranking.scores, strict=True):
        yield {"index": index, "relevance_score": score}


def results_with_documents(ranking: Ranking, body: RankingFields) -> Iterator[dict[str, Any]]:
    """As `results_of`, with each document as an object: a text as its `text`, an object with its text fields."""
    for result in results_of(ranking):
        document = body.documents[result["index"]]
        yield {**result, "document": {"text": document} if isinstance(document, str) else _texts_in(document)}


def results_with_texts(ranking: Ranking, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """As `results_of`, with the compared text."""
    for result in results_of(ranking):
        yield {**result, "document": texts[result["index"]]}


def _texts_in(document: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in document.items() if isinstance(value, str)}


def usage_of(answer: Reranking) -> dict[str, int]:
    """The token counts of a response."""
    return {"prompt_tokens": answer.total_tokens, "total_tokens": answer.total_tokens}
