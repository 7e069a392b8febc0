"""Cohere's routes for texts. Jina's and vLLM's clients use the same rerank routes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from gateway.apis.cohere.errors import COHERE
from gateway.apis.cohere.schemas import EmbedAnswer, EmbedV1Request, EmbedV2Request, RerankAnswer
from gateway.apis.deadlines import reranking_deadline
from gateway.apis.rerank.bodies import (
    rank_documents,
    results_of,
    results_with_documents,
    usage_of,
)
from gateway.apis.rerank.schemas import RerankRequest
from gateway.encoding.base64 import base64_rows
from gateway.encoding.json import finite, json_response
from gateway.encoding.quantization import QUANTIZERS
from gateway.http.exceptions import malformed
from gateway.routing import Call, Routes
from torchless.clients.embedding import Embeddings, EmbedOptions, InputType, Truncation

routes = Routes(COHERE, "/v2", "/v1/embed", "/v1/rerank")
_INPUT_TYPES = {"search_query": InputType.QUERY, "search_document": InputType.DOCUMENT}
_TRUNCATIONS = {"NONE": Truncation.NONE, "START": Truncation.LEFT, "END": Truncation.RIGHT}
_EXAMPLES_V1 = {"documents": {"texts": ["Swifts sleep on the wing."], "input_type": "search_document"}}
_EXAMPLES_V2 = {
    "a query": {"texts": ["How do swifts sleep?"], "input_type": "search_query", "embedding_types": ["float"]},
    "small vectors": {
        "texts": ["Swifts sleep on the wing."],
        "input_type": "search_document",
        "embedding_types": ["int8", "ubinary"],
    },
}
_QUESTION = "How do swifts sleep?"
_RERANK_V1 = {
    "objects": {
        "query": _QUESTION,
        "documents": [
            {"title": "Bread", "text": "Bread needs salt."},
            {"title": "Swifts", "text": "They sleep on the wing."},
        ],
        "rank_fields": ["title", "text"],
        "return_documents": True,
    }
}
_RERANK_V2 = {
    "the best of two": {
        "query": _QUESTION,
        "documents": ["Bread needs salt.", "Swifts sleep on the wing."],
        "top_n": 1,
    }
}
_DOCUMENTS_A_UNIT = 100
"""https://docs.cohere.com/docs/how-does-cohere-pricing-work"""


@routes.post(
    "/v1/embed",
    scope="embed",
    bulkhead="embedding",
    body=EmbedV1Request,
    answer=EmbedAnswer,
    examples=_EXAMPLES_V1,
)
async def embed_v1(body: EmbedV1Request, call: Call) -> Response:
    """Embeds texts, as version 1 of Cohere's API."""
    answer = await _embedded(body.texts, body, call, "texts", 0)
    if body.embedding_types is None:
        return _response("1", body.texts, answer, finite(answer.vectors), "embeddings_floats")
    return _response("1", body.texts, answer, _by_type(answer, body.embedding_types), "embeddings_by_type")


@routes.post(
    "/v2/embed",
    scope="embed",
    bulkhead="embedding",
    body=EmbedV2Request,
    answer=EmbedAnswer,
    examples=_EXAMPLES_V2,
)
async def embed_v2(body: EmbedV2Request, call: Call) -> Response:
    """Embeds texts, as version 2 of Cohere's API.

    int8 codes are round(value * 127 * sqrt(dimensions) / 4), clipped to -127 and 127; uint8 codes are those plus 128.
    ubinary has one bit for each dimension, set above zero, highest bit first; binary is the same bytes minus 128.
    """
    texts, field = _texts(body)
    answer = await _embedded(texts, body, call, field, body.output_dimension)
    return _response("2", texts, answer, _by_type(answer, body.embedding_types), "embeddings_by_type")


@routes.post(
    "/v1/rerank",
    scope="rerank",
    bulkhead="reranking",
    body=RerankRequest,
    answer=RerankAnswer,
    examples=_RERANK_V1,
    deadline=reranking_deadline,
)
async def rerank_v1(body: RerankRequest, call: Call) -> Response:
    """Reranks documents by their relevance to a query, as version 1 of Cohere's API, and as Jina's.

    The response contains the documents, as objects, if `return_documents` is true.
    """
    return await _reranked("1", body, call)


@routes.post(
    "/v2/rerank",
    scope="rerank",
    bulkhead="reranking",
    body=RerankRequest,
    answer=RerankAnswer,
    examples=_RERANK_V2,
    deadline=reranking_deadline,
)
async def rerank_v2(body: RerankRequest, call: Call) -> Response:
    """Reranks documents by their relevance to a query, as version 2 of Cohere's API.

    The response contains the documents, as objects, if `return_documents` is true.
    """
    return await _reranked("2", body, call)


async def _reranked(version: str, body: RerankRequest, call: Call) -> Response:
    texts, found = await rank_documents(body, call)
    return json_response(
        {
            "id": str(uuid4()),
            "results": list(results_with_documents(found, body, texts) if body.return_documents else results_of(found)),
            "meta": {
                "api_version": {"version": version},
                "billed_units": {"search_units": math.ceil(len(body.documents) / _DOCUMENTS_A_UNIT)},
            },
            "model": found.answer.model,
            "usage": usage_of(found.answer),
        }
    )


def _texts(body: EmbedV2Request) -> tuple[list[str], str]:
    if (body.texts is None) == (body.inputs is None):
        raise malformed("texts", "give either texts or inputs")
    if body.inputs is None:
        return body.texts or [], "texts"
    return ["\n".join(part.text for part in one.content) for one in body.inputs], "inputs"


async def _embedded(
    texts: Sequence[str], body: EmbedV1Request | EmbedV2Request, call: Call, field: str, dimensions: int
) -> Embeddings:
    options = EmbedOptions(
        model=body.model,
        input_type=_INPUT_TYPES.get(body.input_type, InputType.UNSPECIFIED),
        truncation=_TRUNCATIONS[body.truncate or ("END" if call.services.settings.limits.truncate else "NONE")],
        dimensions=dimensions,
    )
    names = {"dimensions": "output_dimension"}
    return await call.services.embedder.embed(texts, options, call.context, field=field, renamed=names)


def _by_type(answer: Embeddings, types: Sequence[str]) -> dict[str, Any]:
    return {name: _encoded(name, finite(answer.vectors)) for name in dict.fromkeys(types)}


def _encoded(name: str, vectors: NDArray[np.float32]) -> Any:
    if name == "float":
        return vectors
    return base64_rows(vectors) if name == "base64" else QUANTIZERS[name](vectors)


def _response(version: str, texts: Sequence[str], answer: Embeddings, embeddings: Any, response_type: str) -> Response:
    return json_response(
        {
            "id": str(uuid4()),
            "embeddings": embeddings,
            "texts": texts,
            "meta": {
                "api_version": {"version": version},
                "billed_units": {"input_tokens": sum(answer.token_counts)},
            },
            "response_type": response_type,
        }
    )
