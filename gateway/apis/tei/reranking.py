"""Reranking, as text-embeddings-inference: its body for `/rerank`, and the base path `/reranker`.

A text-embeddings-inference server has one model, and its `/info` says which kind. Clients such as Dify check it before
they rerank. Under `/reranker`, the gateway answers as a server with the reranking model.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from gateway.apis.deadlines import reranking_deadline
from gateway.apis.tei.errors import TEI
from gateway.apis.tei.info import facts_of, model_of
from gateway.apis.tei.schemas import Info, Rank, RerankRequest
from gateway.apis.tei.timing_headers import timing_headers
from gateway.apis.tei.unsupported import NO_CLASSIFIER, unsupported_route
from gateway.encoding.json import json_response
from gateway.routing import Call, Routes
from gateway.services import RERANKING
from torchless.clients.reranking import LongDocuments, RerankOptions, ScoreForm

routes = Routes(TEI, "/reranker")
EXAMPLES = {
    "texts, as text-embeddings-inference": {
        "query": "How do swifts sleep?",
        "texts": ["Bread needs salt.", "Swifts sleep on the wing."],
        "return_text": True,
    }
}
"""Example bodies by what they show."""


@routes.post(
    "/reranker/rerank",
    "/reranker",
    "/reranker/invocations",
    scope="rerank",
    bulkhead="reranking",
    body=RerankRequest,
    answer=list[Rank],
    examples=EXAMPLES,
    deadline=reranking_deadline,
)
async def rerank(body: RerankRequest, call: Call) -> Response:
    """Reranks texts by their relevance to a query; the best comes first."""
    settings = call.services.settings
    cut = settings.limits.truncate if body.truncate is None else body.truncate
    side = LongDocuments.CUT_START if body.truncation_direction.lower() == "left" else LongDocuments.CUT
    options = RerankOptions(
        model=settings.tei.rerank_model,
        score_form=ScoreForm.RAW if body.raw_scores else ScoreForm.UNIT,
        long_documents=side if cut else LongDocuments.REFUSE,
    )
    found = await call.services.reranker.rank(
        body.query, body.texts, options, call.context, field="texts", top_n=body.top_n
    )
    ranks: list[dict[str, Any]] = [
        {"index": index, "score": score} for index, score in zip(found.order, found.scores, strict=True)
    ]
    if body.return_text:
        ranks = [{**rank, "text": body.texts[rank["index"]]} for rank in ranks]
    characters = len(body.query) * len(body.texts) + sum(map(len, body.texts))
    answer = found.answer
    headers = timing_headers(characters, answer.total_tokens, answer.timings, call.context.provenance)
    return json_response(ranks, headers=headers)


@routes.get(
    "/reranker/info", scope="models:read", bulkhead="reranking", answer=Info, statuses=(404, 424, 429, 503, 504)
)
async def info(call: Call) -> Response:
    """Describes the reranking model of text-embeddings-inference's routes, and their limits."""
    settings = call.services.settings
    wanted = call.services.reranker.model_id(settings.tei.rerank_model)
    model = model_of(await call.services.client(RERANKING).list_models(call.context.for_call()), wanted)
    kind = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    return json_response(facts_of(model, kind, settings, batch=settings.limits.documents))


routes.routes.append(unsupported_route("/reranker/predict", "rerank", NO_CLASSIFIER))
