"""The table of capabilities, and the services that requests work with.

A capability is a service behind the gateway. Everything that concerns all of them loops over `CAPABILITIES`: opening,
reloading and closing clients, readiness, and the list of models. docs/adding-a-capability.md has the steps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Generic, Protocol, Self, TypeVar

from gateway.capabilities.embedding import EmbeddingUseCase
from gateway.capabilities.errors import NotConfiguredError
from gateway.capabilities.model_catalogue import ModelCatalogue, ModelSource, ModelUse, ServedModel
from gateway.capabilities.reranking import RerankingUseCase
from gateway.http.api_keys import authenticator
from gateway.http.bodies import BodyLimit
from gateway.http.bulkheads import Admission
from gateway.http.draining import Draining
from gateway.http.identity import Authenticator
from gateway.http.metrics import GatewayMetrics
from gateway.settings import BUILT_IN_ALIASES, EmbeddingClientSettings, GatewaySettings, ModelSettings
from torchless.clients.base import CapabilityClient
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.gpu import GPUClient
from torchless.clients.metrics import ClientMetrics
from torchless.clients.reranking import RerankingClient
from torchless.clients.settings import ClientSettings

C = TypeVar("C", bound=CapabilityClient)


@dataclass(frozen=True, slots=True)
class ListedModels(Generic[C]):
    """How a capability's models get into the list of models."""

    use: ModelUse
    """What they are for."""
    call: Callable[[C, CallContext], Awaitable[Sequence[ServedModel]]]
    """The client's method that lists them."""
    aliases: Callable[[ModelSettings], Mapping[str, str]]
    """The setting that holds their other names."""


@dataclass(frozen=True, slots=True, eq=False)
class Capability(Generic[C]):
    """One row of the table."""

    name: str
    """Its group in `GatewaySettings`, and its name in readiness, metrics and messages."""
    client: type[C]
    """Its client."""
    title: str = ""
    """How messages write the name, where that is another way."""
    models: ListedModels[C] | None = None
    """How its models are listed; None: it has none."""
    configure: Callable[[C, Any], None] | None = None
    """Applies settings that are not in `ClientSettings`, after opening and after each reload."""

    def settings(self, settings: GatewaySettings) -> ClientSettings:
        """Its group in `settings`."""
        group: ClientSettings = getattr(settings, self.name)
        return group

    def open(self, settings: ClientSettings, metrics: ClientMetrics) -> C:
        """A client that has begun to connect."""
        client = self.client(settings, metrics)
        client.start()
        return client


def _join(client: EmbeddingClient, settings: EmbeddingClientSettings) -> None:
    client.join(settings.joining)


EMBEDDING = Capability(
    "embedding",
    EmbeddingClient,
    models=ListedModels("embed", EmbeddingClient.list_models, lambda models: models.aliases),
    configure=_join,
)
RERANKING = Capability(
    "reranking",
    RerankingClient,
    models=ListedModels("rerank", RerankingClient.list_models, lambda models: models.rerank_aliases),
)
GPU = Capability("gpu", GPUClient, title="GPU")
CAPABILITIES: tuple[Capability[Any], ...] = (EMBEDDING, RERANKING, GPU)
"""Every service behind the gateway, in the order of readiness and of the list of models."""


class Closable(Protocol):
    """Holds connections."""

    async def close(self) -> None:
        """Closes them."""


class ReloadState:
    """The outcome of the newest settings in one worker; `refused` is why they are not in force, None if they are."""

    def __init__(self) -> None:
        self.refused: str | None = None


@dataclass(frozen=True)
class Services:
    """The clients, and what stands between them and the routes. `open` makes the first, `reloaded` the next ones.

    A request holds one `Services` from its beginning to its end, so its settings never change. Successive ones share
    the objects that count or connect: clients, admission, body memory.
    """

    settings: GatewaySettings
    """The gateway's settings."""
    draining: Draining
    """Whether the worker is shutting down."""
    reload_state: ReloadState
    """The outcome of the newest settings."""
    metrics: GatewayMetrics
    """The gateway's metrics."""
    by_name: Mapping[str, CapabilityClient]
    """The clients of the configured services, by the capability's name."""
    cache: EmbeddingCache
    """The cache of embeddings, with the embedding service behind it."""
    authenticator: Authenticator
    """Turns credentials into principals."""
    body_limit: BodyLimit
    """Reads bodies."""
    admission: Admission
    """Bounds the requests in flight."""

    @classmethod
    def open(cls, settings: GatewaySettings, draining: Draining) -> Self:
        """Opens the clients; called inside the running event loop."""
        metrics = GatewayMetrics()
        by_name = {
            each.name: each.open(each.settings(settings), metrics.clients)
            for each in CAPABILITIES
            if each.settings(settings).address
        }
        _configure(by_name, settings)
        return cls(
            settings=settings,
            draining=draining,
            reload_state=ReloadState(),
            metrics=metrics,
            by_name=by_name,
            cache=_cache(by_name, settings, metrics),
            authenticator=authenticator(settings.auth.api_keys),
            body_limit=BodyLimit(settings.limits.body_mib, settings.limits.bodies_mib, settings.http.stall_s),
            admission=Admission(settings.limits.concurrent_requests),
        )

    async def reloaded(self, settings: GatewaySettings, leaving: Sequence[Closable] = ()) -> Self:
        """Services with other settings, for the requests that begin from now on.

        Clients are changed in place, and calls in flight finish. The client of a service that the settings no longer
        name is not among the new services' clients; it stays open, because requests that hold these services may use
        it. If a client refuses its settings, all of them get the previous ones again.

        Args:
            settings: The settings.
            leaving: Clients that left earlier and are still open. If the service of one is back, it is used again: a
                second client would connect to the same endpoints, and report them under the same names.
        """
        limits, known = settings.limits, (*self.clients(), *leaving)
        by_name: dict[str, CapabilityClient] = {}
        async with AsyncExitStack() as undo:
            for each in CAPABILITIES:
                if each.settings(settings).address:
                    by_name[each.name] = await self._reopen(each, settings, known, undo)
            is_same = settings.cache == self.settings.cache
            cache = self.cache if is_same else _cache(by_name, settings, self.metrics)
            undo.pop_all()
        _configure(by_name, settings)
        self.body_limit.reconfigure(limits.body_mib, limits.bodies_mib, settings.http.stall_s)
        self.admission.reconfigure(limits.concurrent_requests)
        return replace(
            self, settings=settings, by_name=by_name, cache=cache, authenticator=authenticator(settings.auth.api_keys)
        )

    async def close(self) -> None:
        """Closes the cache and every client."""
        for each in self.connected():
            await each.close()

    def client(self, capability: Capability[C]) -> C:
        """The client of a capability.

        Raises:
            NotConfiguredError: The settings name no address for it.
        """
        found = self.find(capability)
        if found is None:
            raise NotConfiguredError(capability.name, capability.title)
        return found

    def find(self, capability: Capability[C]) -> C | None:
        """The client of a capability; None: the settings name no address for it."""
        found = self.by_name.get(capability.name)
        return found if isinstance(found, capability.client) else None

    def clients(self) -> list[CapabilityClient]:
        """The clients of all configured services."""
        return [*self.by_name.values()]

    def connected(self) -> list[Closable]:
        """Everything to close, in that order."""
        return [self.cache, *self.clients()]

    @cached_property
    def embedder(self) -> EmbeddingUseCase:
        """Embedding."""
        return EmbeddingUseCase(self.client(EMBEDDING), self.cache, self.settings.limits, self.settings.models)

    @cached_property
    def reranker(self) -> RerankingUseCase:
        """Reranking."""
        return RerankingUseCase(self.find(RERANKING), self.settings.limits, self.settings.models)

    @cached_property
    def model_catalogue(self) -> ModelCatalogue:
        """The models of all services."""
        sources = []
        for each in CAPABILITIES:
            if each.models is not None and each.name in self.by_name:
                listing = partial(each.models.call, self.by_name[each.name])
                aliases = each.models.aliases(self.settings.models)
                sources.append(ModelSource(each.models.use, each.name, listing, aliases))
        return ModelCatalogue(sources, self.settings.health.timeout_s, BUILT_IN_ALIASES)

    async def _reopen(
        self, capability: Capability[C], settings: GatewaySettings, known: Sequence[Closable], undo: AsyncExitStack
    ) -> C:
        """The capability's client with other settings: a known one, or else a new one."""
        before, after = capability.settings(self.settings), capability.settings(settings)
        client = next((each for each in known if isinstance(each, capability.client)), None)
        if client is None:
            client = capability.open(after, self.metrics.clients)
            undo.push_async_callback(client.close)
        elif before != after:
            undo.push_async_callback(client.reconfigure, before)
            await client.reconfigure(after)
        return client


def _configure(by_name: Mapping[str, CapabilityClient], settings: GatewaySettings) -> None:
    for each in CAPABILITIES:
        if each.configure is not None and each.name in by_name:
            each.configure(by_name[each.name], each.settings(settings))


def _cache(
    by_name: Mapping[str, CapabilityClient], settings: GatewaySettings, metrics: GatewayMetrics
) -> EmbeddingCache:
    client = by_name[EMBEDDING.name]
    if not isinstance(client, EmbeddingClient):
        raise TypeError("the embedding service is not optional")
    return EmbeddingCache(
        client,
        settings.cache,
        metrics=metrics.cache,
        is_down=client.is_down,
        endpoint_changes=client.endpoint_changes,
        may_serve=client.may_serve,
    )
