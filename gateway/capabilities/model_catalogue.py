"""The models of all services, as the gateway lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from gateway.capabilities.request import RequestContext
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.contracts.errors import ResourceType, not_found

ModelUse = Literal["embed", "rerank"]


class ServedModel(Protocol):
    """A model as its service lists it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def revision(self) -> str:
        """Fingerprint of what decides its results."""

    @property
    def created(self) -> int:
        """When it became ready, in seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A service that has models."""

    use: ModelUse
    """What its models are for."""
    capability: str
    """The capability, as degraded answers name it."""
    list_models: Callable[[CallContext], Awaitable[Sequence[ServedModel]]]
    """Asks the service for its models, the default one first."""
    aliases: Mapping[str, str]
    """Other names of its models; each stands for an id, an empty id for the default model."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that is served."""

    id: str
    """Its id, or another name of it."""
    root: str
    """Its id."""
    created: int
    """When it became ready, in seconds since the Unix epoch."""
    revisions: dict[ModelUse, str]
    """What it is for, and for each use the fingerprint of what decides its results: several services may serve it."""


class ModelCatalogue:
    """Lists the models of several services.

    Args:
        sources: The services, in the order in which their models are listed.
        timeout_s: Time that each service has to answer, in seconds: a slow one must not hold up the others.
        unlisted: Names that can be found and are not listed.
    """

    def __init__(self, sources: Sequence[ModelSource], timeout_s: float, unlisted: Container[str] = ()) -> None:
        self._sources = sources
        self._timeout_s = timeout_s
        self._unlisted = unlisted

    async def list(self, context: RequestContext) -> list[ListedModel]:
        """The models of all services, by id and then by their other names; those of the first source come first.

        Leaves out the models of a service that is unavailable, and marks the answer as degraded.

        Raises:
            TorchlessError: UNREACHABLE, when every service is unavailable; DEADLINE, when the request's deadline
                expires before that.
        """
        named = await self._by_name(context)
        return [model for model in named.values() if model.id not in self._unlisted]

    async def find(self, context: RequestContext, name: str) -> ListedModel:
        """The model that `name`, an id or an alias, stands for.

        Raises:
            TorchlessError: NOT_FOUND; UNREACHABLE, when a service that may have it is unavailable; else as `list`.
        """
        found = (await self._by_name(context)).get(name)
        if found is not None:
            return found
        if context.provenance.degraded:
            context.for_call()  # it may be the request's own deadline that was too short
            raise context.provenance.error()
        raise not_found(
            ResourceType.MODEL, name, f"the model {name!r} is not served; GET /v1/models lists the served models"
        )

    async def _by_name(self, context: RequestContext) -> dict[str, ListedModel]:
        deadline = context.deadline.earlier_of(Deadline.after(self._timeout_s))
        call = replace(context.for_call(), deadline=deadline)
        answers = await asyncio.gather(
            *(context.provenance.or_degrade(source.capability, source.list_models(call)) for source in self._sources)
        )
        if all(answer is None for answer in answers):
            context.for_call()  # it may be the request's own deadline that was too short
            raise context.provenance.error()
        answered = [(source, answer or ()) for source, answer in zip(self._sources, answers, strict=True)]
        named: dict[str, ListedModel] = {}
        for source, served in answered:
            for model in served:
                _add(named, model.id, model, source.use)
        for source, served in answered:
            for alias, wanted in source.aliases.items():
                for model in served:
                    if wanted in {model.id, ""}:
                        _add(named, alias, model, source.use)
                        break
        return named


def _add(named: dict[str, ListedModel], name: str, model: ServedModel, use: ModelUse) -> None:
    listed = named.setdefault(name, ListedModel(name, model.id, model.created, {}))
    listed.revisions.setdefault(use, model.revision)
