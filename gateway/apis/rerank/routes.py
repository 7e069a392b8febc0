"""`/rerank`, shared by text-embeddings-inference, Jina, vLLM and infinity; the body shows which API is meant."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from starlette.responses import Response

from gateway.apis.deadlines import reranking_deadline
from gateway.apis.rerank import schemas as shared
from gateway.apis.rerank.bodies import (
    rank_documents,
    results_of,
    results_with_documents,
    results_with_texts,
    usage_of,
)
from gateway.apis.rerank.errors import RERANK_DOCUMENTS, RERANK_UNDECIDED
from gateway.apis.tei import reranking
from gateway.apis.tei import schemas as tei
from gateway.apis.tei.errors import TEI
from gateway.capabilities.reranking import Ranking
from gateway.encoding.json import json_response
from gateway.http.json_body import BodyVariant
from gateway.routing import Call, Routes

routes = Routes(RERANK_UNDECIDED, "/rerank")
_DOCUMENTS = {
    "documents, as Jina, vLLM and infinity": {
        "query": "How do swifts sleep?",
        "documents": ["Bread needs salt.", "Swifts sleep on the wing."],
        "top_n": 1,
    }
}


async def _documents(body: shared.RerankRequest, call: Call) -> Response:
    texts, found = await rank_documents(body, call)
    return json_response(
        {
            "object": "rerank",
            "id": str(uuid4()),
            "created": int(time.time()),
            "model": found.answer.model,
            "results": list(_results(found, texts, body, call)),
            "usage": usage_of(found.answer),
        }
    )


def _results(found: Ranking, texts: list[str], body: shared.RerankRequest, call: Call) -> Iterable[dict[str, Any]]:
    # vLLM always returns the documents; its requests have no such field.
    if body.return_documents is False:
        return results_of(found)
    # Only infinity's requests have this field, always; its client reads a document as a text.
    if body.raw_scores is not None:
        return results_with_texts(found, texts)
    # litellm reads documents as texts if its user configured infinity, and as objects if vLLM. It fails on the other
    # form, even if it did not request documents, and its requests are identical. Without documents, both work.
    if call.user_agent.startswith("litellm/"):
        return results_of(found)
    return results_with_documents(found, body, texts)


def rerank() -> None:
    """Reranks texts or documents by their relevance to a query.

    The best comes first; equal scores keep the order of the request. With `texts` the response is that of
    text-embeddings-inference: a list. With `documents` it is that of Jina, vLLM and infinity: `results`, `model` and
    `usage`. The response contains the documents unless `return_documents` is false: as objects with `text`, or as texts
    if the request has `raw_scores`, as infinity's requests. litellm gets no documents here, because it reads them in
    two ways and does not say which; use `/v1/rerank` or `/v2/rerank` for them.
    """


routes.post_variants(
    "/rerank",
    scope="rerank",
    bulkhead="reranking",
    variants={
        "texts": BodyVariant(TEI, tei.RerankRequest, list[tei.Rank], reranking.EXAMPLES, reranking.rerank),
        "documents": BodyVariant(RERANK_DOCUMENTS, shared.RerankRequest, shared.RerankAnswer, _DOCUMENTS, _documents),
    },
    about=rerank,
    deadline=reranking_deadline,
)
