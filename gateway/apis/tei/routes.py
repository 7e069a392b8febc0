"""The routes of text-embeddings-inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from gateway.apis.tei.errors import TEI
from gateway.apis.tei.info import facts_of, model_of
from gateway.apis.tei.schemas import (
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    Info,
    SimilarityRequest,
    Token,
    TokenizeRequest,
    TruncationFields,
)
from gateway.apis.tei.timing_headers import characters_of, timing_headers
from gateway.apis.tei.unsupported import NO_CLASSIFIER, NO_SPLADE, unsupported_route
from gateway.encoding.json import encode_json, finite, joined_lists, json_response
from gateway.http.json_body import BodyVariant
from gateway.routing import Call, Routes
from gateway.services import EMBEDDING
from torchless.clients.embedding import Embeddings, EmbedOptions, Granularity, Truncation

routes = Routes(TEI)
_TEXTS = {
    "one text": {"inputs": "How do swifts sleep?"},
    "several": {"inputs": ["How do swifts sleep?", "On the wing."]},
}
_SIMILARITY = {
    "one text with two others": {
        "inputs": {"source_sentence": "How do swifts sleep?", "sentences": ["On the wing.", "Bread needs salt."]}
    }
}


@routes.post(
    "/embed",
    scope="embed",
    bulkhead="embedding",
    body=EmbedRequest,
    answer=list[list[float]],
    examples=_TEXTS,
)
async def embed(body: EmbedRequest, call: Call) -> Response:
    """Embeds texts or token ids; the response is always a list of vectors, also for one input."""
    options = replace(_options(body, call), normalize=body.normalize, dimensions=body.dimensions)
    answer = await call.services.embedder.embed(body.inputs, options, call.context, field="inputs")
    return json_response(finite(answer.vectors), headers=_timings(answer, characters_of(body.inputs), call))


@routes.post(
    "/embed_all",
    scope="embed",
    bulkhead="embedding",
    body=EmbedAllRequest,
    answer=list[list[list[float]]],
    examples=_TEXTS,
)
async def embed_all(body: EmbedAllRequest, call: Call) -> Response:
    """Returns one vector for each token of each input, with special tokens, not pooled and not normalized."""
    options = replace(_options(body, call), normalize=False, granularity=Granularity.TOKEN)
    answer = await call.services.embedder.embed(body.inputs, options, call.context, field="inputs")
    finite(answer.vectors)
    return json_response(answer.per_input(), headers=_timings(answer, characters_of(body.inputs), call))


@routes.post(
    "/similarity",
    scope="embed",
    bulkhead="embedding",
    body=SimilarityRequest,
    answer=list[float],
    examples=_SIMILARITY,
)
async def similarity(body: SimilarityRequest, call: Call) -> Response:
    """Returns the cosine similarity of one text with each of several others."""
    limits = call.services.embedder.limits
    source = limits.texts(body.inputs.source_sentence, ("inputs", "source_sentence"))
    sentences = limits.texts(body.inputs.sentences, ("inputs", "sentences"))
    texts = [*source, *sentences]
    answer = await call.services.embedder.embed_list(
        texts,
        _options(body.parameters, call),
        call.context,
        path=("inputs",),
        path_of=lambda index: ("inputs", "sentences", index - 1) if index else ("inputs", "source_sentence"),
    )
    vectors = finite(answer.vectors)
    return json_response(vectors[1:] @ vectors[0], headers=_timings(answer, characters_of(texts), call))


def _default_variant(content: Mapping[str, Any], variants: Mapping[str, BodyVariant]) -> BodyVariant:
    return variants["similarity" if isinstance(content.get("inputs"), dict) else "embed"]


def default() -> None:
    """Embeds texts or token ids, or compares texts.

    If `inputs` is an object with `source_sentence` and `sentences`, as for Hugging Face's task sentence-similarity, the
    response is that of `/similarity`; otherwise it is that of `/embed`. `/invocations` is for Amazon SageMaker.
    """


routes.post_variants(
    "/",
    "/invocations",
    scope="embed",
    bulkhead="embedding",
    variants={
        "embed": BodyVariant(TEI, EmbedRequest, list[list[float]], _TEXTS, embed),
        "similarity": BodyVariant(TEI, SimilarityRequest, list[float], _SIMILARITY, similarity),
    },
    choose=_default_variant,
    about=default,
)


@routes.post(
    "/tokenize",
    scope="embed",
    bulkhead="embedding",
    body=TokenizeRequest,
    answer=list[list[Token]],
    examples=_TEXTS,
)
async def tokenize(body: TokenizeRequest, call: Call) -> Response:
    """Returns the tokens of texts, with their positions."""
    parts = call.services.embedder.tokenize(
        body.inputs,
        call.context,
        field="inputs",
        model=call.services.settings.tei.model,
        add_special_tokens=body.add_special_tokens,
        prompt_name=body.prompt_name,
    )
    # One part after the other, so that other requests are answered between them.
    return joined_lists([encode_json(part) async for part in parts])


@routes.post(
    "/decode",
    scope="embed",
    bulkhead="embedding",
    body=DecodeRequest,
    answer=list[str],
    examples={"one sequence": {"ids": [101, 7592, 102]}},
)
async def decode(body: DecodeRequest, call: Call) -> Response:
    """Decodes token ids of the model's vocabulary to texts."""
    answer = await call.services.embedder.detokenize(
        body.ids,
        call.context,
        field="ids",
        model=call.services.settings.tei.model,
        skip_special_tokens=body.skip_special_tokens,
    )
    return json_response(answer)


@routes.get("/info", scope="models:read", bulkhead="embedding", answer=Info, statuses=(404, 424, 429, 503, 504))
async def info(call: Call) -> Response:
    """Describes the embedding model of these routes, and their limits."""
    settings = call.services.settings
    model = model_of(await call.services.client(EMBEDDING).list_models(call.context.for_call()), _model(call))
    kind = {"embedding": {"pooling": model.pooling}}
    return json_response(facts_of(model, kind, settings, batch=settings.limits.items))


routes.routes.append(unsupported_route("/predict", "rerank", NO_CLASSIFIER))
routes.routes.append(unsupported_route("/embed_sparse", "embed", NO_SPLADE))


def _options(body: TruncationFields, call: Call) -> EmbedOptions:
    cut = call.services.settings.limits.truncate if body.truncate is None else body.truncate
    side = Truncation.LEFT if body.truncation_direction.lower() == "left" else Truncation.RIGHT
    return EmbedOptions(model=_model(call), prompt_name=body.prompt_name, truncation=side if cut else Truncation.NONE)


def _model(call: Call) -> str:
    return call.services.embedder.model_id(call.services.settings.tei.model)


def _timings(answer: Embeddings, characters: int, call: Call) -> dict[str, str]:
    return timing_headers(characters, sum(answer.token_counts), answer.timings, call.context.provenance)
