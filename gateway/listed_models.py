"""The models of all services, as the gateway lists them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Literal

from gateway.routing import Call
from torchless.clients.call import CallContext
from torchless.contracts.errors import ErrorKind, TorchlessError
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

    Those of a service that is out are left out, and the answer says so.

    Raises:
        TorchlessError: UNREACHABLE, when every service is out; DEADLINE, when the caller's time is over before that.
    """
    services, provenance = call.services, call.context.provenance
    context = _in_time(call)
    embedding, reranking = await asyncio.gather(
        provenance.optional("embedding", services.embedding.list_models(context)),
        _reranking_models(call, context),
    )
    if embedding is None and reranking is None:
        call.context.for_call()  # it may be the caller's own time that was too short
        raise provenance.unanswered()
    embedding, reranking = embedding or [], reranking or []
    reranking_ids = {model.id for model in reranking}
    listed = [
        ListedModel(model.id, model.created, ["embed", "rerank"] if model.id in reranking_ids else ["embed"])
        for model in embedding
    ]
    embedding_ids = {model.id for model in embedding}
    more = [ListedModel(model.id, model.created, ["rerank"]) for model in reranking if model.id not in embedding_ids]
    return listed + more


async def served_model(call: Call, name: str) -> ListedModel:
    """The first of `served_models` that `name`, an id or an alias, stands for.

    Raises:
        TorchlessError: NOT_FOUND; UNREACHABLE, when it may be a model of a service that is out; else as
            `served_models`.
    """
    wanted = call.services.embedder.model_id(name), call.services.reranker.model_id(name)
    for served in await served_models(call):
        if served.answers_to(*wanted):
            return served
    if call.context.provenance.degraded:
        raise call.context.provenance.unanswered()
    raise TorchlessError(ErrorKind.NOT_FOUND, f"the model {name!r} is not served; GET /v1/models lists those that are")


async def _reranking_models(call: Call, context: CallContext) -> list[RerankingModel] | None:
    client = call.services.reranking
    return None if client is None else await call.context.provenance.optional("reranking", client.list_models(context))


def _in_time(call: Call) -> CallContext:
    """Each service has the time of a readiness check: it must not hold up the others."""
    context = call.context.for_call()
    longest_s = call.services.settings.health.timeout_s
    return replace(context, deadline_s=min(context.deadline_s or longest_s, longest_s))
