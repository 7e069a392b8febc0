"""What the routes work with: one object, made when the gateway opens and closed when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gateway.admission import Admission
from gateway.api_key import KeyRing
from gateway.body_limit import BodyLimit
from gateway.draining import Draining
from gateway.embedder import Embedder
from gateway.reranker import Reranker
from gateway.settings import GatewaySettings
from torchless.clients.base import CapabilityClient
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.gpu import GPUClient
from torchless.clients.reranking import RerankingClient


@dataclass(frozen=True, slots=True)
class Services:
    """The clients of the services behind the gateway, and what stands between them and the routes."""

    settings: GatewaySettings
    """The gateway's settings."""
    draining: Draining
    """Whether the worker is on its way out."""
    embedding: EmbeddingClient
    """The embedding service."""
    reranking: RerankingClient | None
    """The reranking service; None where none is configured."""
    gpu: GPUClient | None
    """The GPU service; None where none is configured."""
    embedder: Embedder
    """Embedding with limits, aliases and the caller's field names."""
    reranker: Reranker
    """Reranking with limits, aliases and the caller's field names."""
    keys: KeyRing
    """Who may call."""
    body_limit: BodyLimit
    """Reads bodies."""
    admission: Admission
    """Bounds the requests at work."""

    @classmethod
    def open(cls, settings: GatewaySettings, draining: Draining) -> Self:
        """Made inside the running event loop; connects with the first call."""
        client = EmbeddingClient(settings.embedding)
        reranking = RerankingClient(settings.reranking) if settings.reranking.address else None
        return cls(
            settings=settings,
            draining=draining,
            embedding=client,
            reranking=reranking,
            gpu=GPUClient(settings.gpu) if settings.gpu.address else None,
            embedder=Embedder(client, settings.limits, settings.models),
            reranker=Reranker(reranking, settings.limits, settings.models),
            keys=KeyRing(settings.auth.api_keys),
            body_limit=BodyLimit(settings.limits.body_mib, settings.limits.bodies_mib),
            admission=Admission(settings.limits.concurrent_requests),
        )

    async def close(self) -> None:
        """Closes every client."""
        for client in self.clients():
            await client.close()

    def clients(self) -> list[CapabilityClient]:
        """The clients of the services that are configured."""
        return [client for client in (self.embedding, self.reranking, self.gpu) if client is not None]
