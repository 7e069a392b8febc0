"""The models of all services, as the gateway lists them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Literal

from gateway.endpoint import Call
from torchless.contracts.reranking.v1.reranking_pb2 import Model as RerankingModel

Capability = Literal["embed", "rerank"]


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that is served."""

    id: str
    """Its id."""
    created: int
    """When it was made ready, in seconds since the Unix epoch."""
    capabilities: list[Capability]
    """What it is for: both, where two services serve the same model."""

    def answers_to(self, embedding_id: str, reranking_id: str) -> bool:
        """Whether it is what these ids, that a name stands for in requests, mean; empty: a default model."""
        wanted = {"embed": embedding_id, "rerank": reranking_id}
        return any(wanted[capability] in {self.id, ""} for capability in self.capabilities)


async def served_models(call: Call) -> list[ListedModel]:
    """The models that embed, the default one first, then those that rerank.

    Raises:
        TorchlessError: As the embedding service.
    """
    embedding, reranking = await asyncio.gather(
        call.services.embedding.list_models(call.context.for_call()), _reranking_models(call)
    )
    reranking_ids = {model.id for model in reranking}
    listed = [
        ListedModel(model.id, model.created, ["embed", "rerank"] if model.id in reranking_ids else ["embed"])
        for model in embedding
    ]
    embedding_ids = {model.id for model in embedding}
    more = [ListedModel(model.id, model.created, ["rerank"]) for model in reranking if model.id not in embedding_ids]
    return listed + more


async def _reranking_models(call: Call) -> list[RerankingModel]:
    """None while the service does not answer within the time of a readiness check: it must not hold up the others."""
    client = call.services.reranking
    if client is None:
        return []
    context = call.context.for_call()
    longest_s = call.services.settings.health.timeout_s
    context = replace(context, deadline_s=min(context.deadline_s or longest_s, longest_s))
    return await call.context.provenance.optional("reranking", client.list_models(context)) or []
