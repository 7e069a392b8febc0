"""What the routes work with: one object, made when the gateway opens, and made anew when its settings change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

from gateway.capabilities.embedding import EmbeddingUseCase
from gateway.capabilities.model_catalogue import ModelCatalogue, ModelSource
from gateway.capabilities.reranking import RerankingUseCase
from gateway.http.admission import Admission
from gateway.http.api_keys import KeyRing
from gateway.http.body_limit import BodyLimit
from gateway.http.draining import Draining
from gateway.http.metrics import Instruments
from gateway.settings import GatewaySettings
from torchless.clients.base import CapabilityClient
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.gpu import GPUClient
from torchless.clients.reranking import RerankingClient
from torchless.clients.settings import ClientSettings

C = TypeVar("C", bound=CapabilityClient)


class Closable(Protocol):
    """Holds connections."""

    async def close(self) -> None:
        """Ends them."""


class ReloadState:
    """The outcome of the newest settings in one worker; `refused` is why they are not in force, None if they are."""

    def __init__(self) -> None:
        self.refused: str | None = None


@dataclass(frozen=True, slots=True)
class Services:
    """The clients of the services behind the gateway, and what stands between them and the routes.

    A request holds one from its beginning to its end, which so has the same settings throughout. Of two that follow
    each other, what counts or connects is the same object: clients, admission, room for bodies.
    """

    settings: GatewaySettings
    """The gateway's settings."""
    draining: Draining
    """Whether the worker is on its way out."""
    reload_state: ReloadState
    """What became of the newest settings."""
    instruments: Instruments
    """The gateway's metrics."""
    embedding: EmbeddingClient
    """The embedding service."""
    cache: EmbeddingCache
    """Embeddings that the service has given before."""
    reranking: RerankingClient | None
    """The reranking service; None where none is configured."""
    gpu: GPUClient | None
    """The GPU service; None where none is configured."""
    embedder: EmbeddingUseCase
    """Embedding with limits, aliases and the caller's field names."""
    reranker: RerankingUseCase
    """Reranking with limits, aliases and the caller's field names."""
    model_catalogue: ModelCatalogue
    """The models of all services."""
    keys: KeyRing
    """Who may call."""
    body_limit: BodyLimit
    """Reads bodies."""
    admission: Admission
    """Bounds the requests at work."""

    @classmethod
    def open(cls, settings: GatewaySettings, draining: Draining) -> Self:
        """Made inside the running event loop; connects with the first call."""
        instruments = Instruments()
        metrics = instruments.clients
        client = EmbeddingClient(settings.embedding, metrics, settings.embedding.joining)
        reranking = RerankingClient(settings.reranking, metrics) if settings.reranking.address else None
        gpu = GPUClient(settings.gpu, metrics) if settings.gpu.address else None
        for each in (client, reranking, gpu):
            if each is not None:
                each.start()
        cache = _cache(client, settings, instruments)
        return cls(
            settings=settings,
            draining=draining,
            reload_state=ReloadState(),
            instruments=instruments,
            embedding=client,
            cache=cache,
            reranking=reranking,
            gpu=gpu,
            embedder=EmbeddingUseCase(cache, settings.limits, settings.models),
            reranker=RerankingUseCase(reranking, settings.limits, settings.models),
            model_catalogue=_catalogue(client, reranking, settings),
            keys=KeyRing(settings.auth.api_keys),
            body_limit=BodyLimit(settings.limits.body_mib, settings.limits.bodies_mib),
            admission=Admission(settings.limits.concurrent_requests),
        )

    async def reloaded(self, settings: GatewaySettings, leaving: Sequence[Closable] = ()) -> Self:
        """Services with other settings, for the requests that begin from now on.

        Clients are changed in place, and calls in flight finish. One of a service that the settings no longer name is
        not among the new services' clients; it stays open, because requests that hold these services may use it.
        Should a client refuse its settings, all of them have the old ones again.

        Args:
            settings: The settings.
            leaving: Such clients of services before these, still open. One whose service is back is used again: a
                second one would connect to the same endpoints, and show them under the same names.
        """
        before, limits = self.settings, settings.limits
        async with AsyncExitStack() as undo:
            await _reconfigure(self.embedding, before.embedding, settings.embedding, undo)
            known = (*self.clients(), *leaving)
            reranking = await self._client(RerankingClient, known, before.reranking, settings.reranking, undo)
            gpu = await self._client(GPUClient, known, before.gpu, settings.gpu, undo)
            cache = self.cache if settings.cache == before.cache else _cache(self.embedding, settings, self.instruments)
            undo.pop_all()
        self.embedding.join(settings.embedding.joining)
        self.body_limit.reconfigure(limits.body_mib, limits.bodies_mib)
        self.admission.reconfigure(limits.concurrent_requests)
        return replace(
            self,
            settings=settings,
            cache=cache,
            reranking=reranking,
            gpu=gpu,
            embedder=EmbeddingUseCase(cache, limits, settings.models),
            reranker=RerankingUseCase(reranking, limits, settings.models),
            model_catalogue=_catalogue(self.embedding, reranking, settings),
            keys=KeyRing(settings.auth.api_keys),
        )

    async def close(self) -> None:
        """Closes the cache and every client."""
        for each in self.connected():
            await each.close()

    def clients(self) -> list[CapabilityClient]:
        """The clients of the services that are configured."""
        return [client for client in (self.embedding, self.reranking, self.gpu) if client is not None]

    def connected(self) -> list[Closable]:
        """Everything that is to be closed, in that order."""
        return [self.cache, *self.clients()]

    async def _client(
        self,
        kind: type[C],
        known: Sequence[Closable],
        before: ClientSettings,
        after: ClientSettings,
        undo: AsyncExitStack,
    ) -> C | None:
        """A service's client by its new settings: one that is known, a new one, or None where they name no address."""
        if not after.address:
            return None
        client = next((each for each in known if isinstance(each, kind)), None)
        if client is None:
            client = kind(after, self.instruments.clients)
            client.start()
            undo.push_async_callback(client.close)
        else:
            await _reconfigure(client, before, after, undo)
        return client


def _cache(client: EmbeddingClient, settings: GatewaySettings, instruments: Instruments) -> EmbeddingCache:
    return EmbeddingCache(
        client,
        settings.cache,
        metrics=instruments.cache,
        is_down=client.is_down,
    )


def _catalogue(
    embedding: EmbeddingClient, reranking: RerankingClient | None, settings: GatewaySettings
) -> ModelCatalogue:
    sources = [ModelSource("embed", "embedding", embedding.list_models, settings.models.aliases)]
    if reranking is not None:
        sources.append(ModelSource("rerank", "reranking", reranking.list_models, settings.models.rerank_aliases))
    return ModelCatalogue(sources, settings.health.timeout_s)


async def _reconfigure(
    client: CapabilityClient, before: ClientSettings, after: ClientSettings, undo: AsyncExitStack
) -> None:
    if before != after:
        undo.push_async_callback(client.reconfigure, before)
        await client.reconfigure(after)
