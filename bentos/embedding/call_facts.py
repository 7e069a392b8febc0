"""What the messages of the embedding service say for the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bentos.serving.call_log import CallFacts
from torchless.contracts.embedding.v1 import embedding_pb2 as pb


def describe(facts: CallFacts, message: Any) -> None:
    """Adds what a request or a response says; of texts and vectors, only their number."""
    add = _BY_TYPE.get(type(message))
    if add is not None:
        add(facts, message)


def _embed(facts: CallFacts, request: pb.GenerateEmbeddingsRequest) -> None:
    facts.model = request.model
    facts.items = len(request.texts) + len(request.token_ids)


def _texts(facts: CallFacts, request: pb.CountTokensRequest | pb.TokenizeRequest) -> None:
    facts.model, facts.items = request.model, len(request.texts)


def _detokenize(facts: CallFacts, request: pb.DetokenizeRequest) -> None:
    facts.model, facts.items = request.model, len(request.token_ids)


def _embeddings(facts: CallFacts, response: pb.GenerateEmbeddingsResponse) -> None:
    facts.model = response.model
    facts.tokens += sum(response.token_counts)
    facts.add_times(response.timings)


def _frame(facts: CallFacts, frame: pb.StreamEmbeddingsResponse) -> None:
    if frame.HasField("error"):
        facts.refused += 1
    else:
        facts.items += len(frame.response.token_counts)
        _embeddings(facts, frame.response)


def _counts(facts: CallFacts, response: pb.CountTokensResponse) -> None:
    facts.model, facts.tokens = response.model, sum(response.token_counts)


def _tokens(facts: CallFacts, response: pb.TokenizeResponse) -> None:
    facts.model, facts.tokens = response.model, sum(len(text.tokens) for text in response.texts)


def _decoded(facts: CallFacts, response: pb.DetokenizeResponse) -> None:
    facts.model = response.model


_BY_TYPE: Mapping[type, Callable[[CallFacts, Any], None]] = {
    pb.GenerateEmbeddingsRequest: _embed,
    pb.GenerateEmbeddingsResponse: _embeddings,
    pb.StreamEmbeddingsResponse: _frame,
    pb.CountTokensRequest: _texts,
    pb.CountTokensResponse: _counts,
    pb.TokenizeRequest: _texts,
    pb.TokenizeResponse: _tokens,
    pb.DetokenizeRequest: _detokenize,
    pb.DetokenizeResponse: _decoded,
}
