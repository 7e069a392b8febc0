"""The two ways to call the stack: its services over gRPC, or its gateway over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from torchless.cli.gateway_api import GatewayClient
from torchless.clients.embedding import EmbeddingClient, EmbedOptions, InputType
from torchless.clients.reranking import Query, RerankingClient
from torchless.clients.settings import ClientSettings

_DEADLINE_S = 600.0


class Services(Protocol):
    """Embeds and reranks. The queries of one call share its cost."""

    name: str
    """Name in the report."""

    async def embed(self, texts: Sequence[str], kind: InputType) -> NDArray[np.float32]:
        """Vectors of length 1, shape (texts, dimensions)."""

    async def rerank(self, queries: Sequence[Query]) -> list[NDArray[np.intp]]:
        """For each query the indices of its documents, the best first; equal scores keep their order."""

    async def models(self) -> str:
        """A description of the models."""

    async def __aenter__(self) -> Self:
        """Opens the connections."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connections."""


class GRPCServices:
    """The embedding and the reranking service, with our clients; many queries in a call.

    Args:
        embedding: Address, `host:port`.
        reranking: Address, `host:port`.
    """

    name = "gRPC: GenerateEmbeddings, RerankBatch"

    def __init__(self, embedding: str, reranking: str) -> None:
        self._addresses = embedding, reranking

    async def __aenter__(self) -> Self:
        # Channels belong to the running event loop.
        embedding, reranking = (ClientSettings(address=each, deadline_s=_DEADLINE_S) for each in self._addresses)
        self._embedding, self._reranking = EmbeddingClient(embedding), RerankingClient(reranking)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._embedding.close()
        await self._reranking.close()

    async def embed(self, texts: Sequence[str], kind: InputType) -> NDArray[np.float32]:
        """See `Services`."""
        return (await self._embedding.embed(texts, EmbedOptions(input_type=kind))).vectors

    async def rerank(self, queries: Sequence[Query]) -> list[NDArray[np.intp]]:
        """See `Services`."""
        found = await self._reranking.rerank_batch(queries)
        return [scores.order() for scores in found.queries]

    async def models(self) -> str:
        """See `Services`."""
        embedding, reranking = (await self._embedding.list_models())[0], (await self._reranking.list_models())[0]
        return f"embedding by {embedding.id}, reranking by {reranking.id}"


class GatewayServices:
    """The gateway: `POST /v1/embeddings` and, for each query, `POST /v2/rerank`.

    Args:
        url: Its base URL.
    """

    name = "HTTP: /v1/embeddings, /v2/rerank"

    def __init__(self, url: str) -> None:
        self._gateway = GatewayClient(url, timeout_s=_DEADLINE_S)

    async def __aenter__(self) -> Self:
        await self._gateway.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._gateway.__aexit__(kind, error, trace)

    async def embed(self, texts: Sequence[str], kind: InputType) -> NDArray[np.float32]:
        """See `Services`; OpenAI's API has no input types."""
        del kind
        return await self._gateway.embed(texts)

    async def rerank(self, queries: Sequence[Query]) -> list[NDArray[np.intp]]:
        """See `Services`."""
        answers = [await self._gateway.rerank(query.text, query.documents) for query in queries]
        return [np.array([ranked.index for ranked in answer], dtype=np.intp) for answer in answers]

    async def models(self) -> str:
        """See `Services`."""
        return "the gateway's default models"
