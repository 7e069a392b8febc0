"""vLLM's route for scoring pairs of texts. Its rerank routes are those of `rerank` and `cohere`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from starlette.responses import Response

from gateway.apis.deadlines import reranking_deadline
from gateway.apis.rerank.bodies import options_of, text_of, usage_of
from gateway.apis.vllm.errors import VLLM
from gateway.apis.vllm.schemas import ScoreAnswer, ScoreRequest
from gateway.encoding.json import json_response
from gateway.http.exceptions import MalformedRequestError
from gateway.routing import Call, Routes
from torchless.contracts.errors import FieldViolation

routes = Routes(VLLM, "/score", "/v1/score")
_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
_EXAMPLES = {
    "one query with several documents": {
        "text_1": "How do swifts sleep?",
        "text_2": ["Bread needs salt.", "Swifts sleep on the wing."],
    },
    "pair by pair": {
        "queries": ["How do swifts sleep?", "What does bread need?"],
        "documents": ["Swifts sleep on the wing.", "Bread needs salt."],
    },
}


@routes.post(
    "/score",
    "/v1/score",
    scope="rerank",
    bulkhead="reranking",
    body=ScoreRequest,
    answer=ScoreAnswer,
    examples=_EXAMPLES,
    deadline=reranking_deadline,
)
async def score(body: ScoreRequest, call: Call) -> Response:
    """Scores pairs of texts: one query with each document, or each query with the document at the same position."""
    fields = _fields(body)
    queries, documents = (_texts(getattr(body, name), name) for name in fields)
    answer = await call.services.reranker.score(
        queries, documents, options_of(body, call.services.settings.limits), call.context, fields=fields
    )
    scores = [score for query in answer.queries for score in query.scores]
    return json_response(
        {
            "id": f"score-{uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": answer.model,
            "data": [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)],
            "usage": usage_of(answer),
        }
    )


def _texts(side: Any, name: str) -> str | list[str]:
    if not isinstance(side, list):
        return text_of(side, (name,))
    return [each if isinstance(each, str) else text_of(each, (name, index)) for index, each in enumerate(side)]


def _fields(body: ScoreRequest) -> tuple[str, str]:
    """The field names of queries and documents in the request."""
    given = {name for pair in _PAIRS for name in pair if getattr(body, name) is not None}
    for pair in _PAIRS:
        if given == set(pair):
            return pair
    raise _neither(sorted(given) or ["text_1"])


def _neither(given: Sequence[str]) -> MalformedRequestError:
    pairs = ", or ".join(" and ".join(pair) for pair in _PAIRS)
    description = f"give exactly two sides: {pairs}"
    violations = tuple(FieldViolation((name,), description) for name in given)
    return MalformedRequestError(violations, f"{', '.join(given)}: {description}")
