"""OpenAI's routes. infinity's client uses the same paths without `/v1`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from gateway.apis.openai.cl100k import vocabulary
from gateway.apis.openai.errors import OPENAI
from gateway.apis.openai.schemas import EmbeddingsAnswer, EmbeddingsRequest, EmbeddingType, Model, ModelsAnswer
from gateway.capabilities.embedding import EmbeddingUseCase, Inputs
from gateway.capabilities.model_catalogue import ListedModel
from gateway.encoding.base64 import base64_rows
from gateway.encoding.json import finite, json_response
from gateway.encoding.quantization import QUANTIZERS
from gateway.http.exceptions import malformed, unknown_route
from gateway.routing import Call, Routes
from gateway.settings import LimitSettings
from torchless.clients.embedding import EmbedOptions, Truncation

routes = Routes(OPENAI, "/v1", "/embeddings", "/models")
_EXAMPLES = {
    "one text": {"input": "How do swifts sleep?"},
    "several texts as base64": {
        "input": ["How do swifts sleep?", "Swifts sleep on the wing."],
        "encoding_format": "base64",
    },
    "token ids of cl100k_base": {"input": [[9906, 1917]]},
}


@routes.post(
    "/v1/embeddings",
    "/embeddings",
    scope="embed",
    bulkhead="embedding",
    body=EmbeddingsRequest,
    answer=EmbeddingsAnswer,
    examples=_EXAMPLES,
)
async def embeddings(body: EmbeddingsRequest, call: Call) -> Response:
    """Embeds texts or token ids, as the APIs of OpenAI, Jina, vLLM and infinity.

    Token ids are ids of cl100k_base, the vocabulary of OpenAI's clients: they are decoded to text and tokenized again
    for the model. `usage` counts the model's tokens.
    """
    services = call.services
    inputs: Inputs = body.input
    if _token_ids(inputs) and services.settings.openai.reads_cl100k:
        inputs = _cl100k_texts(inputs, services.embedder)  # type: ignore[arg-type]
    options = EmbedOptions(
        model=body.model,
        input_type=body.purpose,
        normalize=body.normalized and body.use_activation and body.normalize,
        dimensions=body.dimensions,
        truncation=_truncation(body, services.settings.limits),
    )
    answer = await services.embedder.embed(inputs, options, call.context, field="input", one_may_be_empty=True)
    rows = _encoded(finite(answer.vectors), body.form)
    tokens = sum(answer.token_counts)
    return json_response(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
            "model": answer.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _truncation(body: EmbeddingsRequest, limits: LimitSettings) -> Truncation:
    truncate = body.truncate
    if body.truncate_prompt_tokens is not None:
        if truncate is False:
            raise malformed("truncate", "is false, but truncate_prompt_tokens asks for truncation; send one of them")
        truncate = True
    if not (limits.truncate if truncate is None else truncate):
        return Truncation.NONE
    return Truncation.LEFT if body.truncation_side == "left" else Truncation.RIGHT


def _encoded(vectors: NDArray[np.float32], form: EmbeddingType) -> Iterable[Any]:
    if form == "float":
        return vectors
    return base64_rows(vectors) if form == "base64" else QUANTIZERS[form](vectors)


def _token_ids(inputs: Inputs) -> bool:
    return not isinstance(inputs, str) and bool(inputs) and not isinstance(inputs[0], str)


def _cl100k_texts(inputs: Sequence[int] | Sequence[Sequence[int]], embedder: EmbeddingUseCase) -> str | list[str]:
    sequences = embedder.limits.token_ids(inputs, ("input",))
    words = vocabulary()
    if isinstance(inputs[0], int):
        return words.decode(sequences[0], ("input",))
    return [words.decode(ids, ("input", index)) for index, ids in enumerate(sequences)]


@routes.get("/v1/models", scope="models:read", bulkhead="models", answer=ModelsAnswer, statuses=(429, 503, 504))
async def models(call: Call) -> Response:
    """The served models: embedding models first, beginning with the default model, then rerank models, then aliases.

    If a service does not answer, its models are omitted and `x-torchless-degraded` names it; if none does, the status
    is 503.
    """
    return json_response(
        {"object": "list", "data": [_entry(model) for model in await call.services.model_catalogue.list(call.context)]}
    )


@routes.get("/models", scope="models:read", bulkhead="models", answer=ModelsAnswer, statuses=(429, 503, 504))
async def infinity_models(call: Call) -> Response:
    """The served models, for infinity's client.

    The client requires `stats` in addition to OpenAI's fields, and accepts only `infinity` as owner.
    """
    more = {"stats": {}, "owned_by": "infinity", "backend": "torchless"}
    return json_response(
        {
            "object": "list",
            "data": [_entry(model) | more for model in await call.services.model_catalogue.list(call.context)],
        }
    )


@routes.get(
    "/v1/models/{model_id:path}",
    scope="models:read",
    bulkhead="models",
    answer=Model,
    statuses=(404, 429, 503, 504),
)
async def model(call: Call) -> Response:
    """Describes one model, by its id or an alias.

    If a service does not answer, the status is 503 instead of 404, because the model may belong to it.
    """
    name: str = call.path_params["model_id"]
    if not name:
        raise unknown_route("/v1/models/")
    return json_response(_entry(await call.services.model_catalogue.find(call.context, name)))


def _entry(model: ListedModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "torchless",
        "root": model.root,
        "capabilities": [*model.revisions],
        "revisions": model.revisions,
    }
