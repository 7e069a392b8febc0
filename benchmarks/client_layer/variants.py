"""The ways to call an embedding service that are compared: a bare stub, and the client layer with its options."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry

from benchmarks.data.inputs import Request
from benchmarks.data.texts import passages
from benchmarks.load_generator.senders import Answer
from benchmarks.plan import Length
from torchless.clients.adaptive_limit import ConcurrencySettings
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.embedding import EmbeddingClient, Embeddings, read_embeddings
from torchless.clients.endpoint_state import Health
from torchless.clients.endpoints.channel import open_channel
from torchless.clients.metrics import ClientMetrics
from torchless.clients.request_joining import JoiningSettings
from torchless.clients.settings import ClientSettings
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub

BARE = "bare stub"
CLIENT = "EmbeddingClient"
THREE = "client, 3 endpoints"
JOINING = "client, joining"
LIMIT = "client, adaptive limit"
MISS = "cache, miss"
HIT = "cache, hit in memory"
REDIS_MISS = "cache, miss in Redis as well"
REDIS_HIT = "cache, hit in Redis"

_TEXTS = 64
_UP_S = 10.0
_DEADLINE_S = 30.0
_REDIS_TIMEOUT_S = 5.0
"""Long, because after a timeout the cache avoids Redis for a second, and a whole window of hits would be misses."""
T = TypeVar("T")


class UnexpectedAnswerError(Exception):
    """A variant returned something else than it is named after, so its times mean nothing."""


class Variant(Generic[T]):
    """One way to call the service, as a `Sender` with one text per request.

    Args:
        embed: Calls the service and reads the response.
        vectors: Gives the vectors of a response.
        text: Gives the text of a request by its number.
        expected: Whether a response is what this variant is named after; None: always.
    """

    def __init__(
        self,
        embed: Callable[[Sequence[str]], Awaitable[T]],
        vectors: Callable[[T], Answer],
        text: Callable[[int], str],
        expected: Callable[[T], bool] | None = None,
    ) -> None:
        self._embed = embed
        self._vectors = vectors
        self._text = text
        self._expected = expected

    async def send(self, connection: int, number: int) -> None:
        """See `Sender`.

        Raises:
            UnexpectedAnswerError: The cache answered otherwise than expected.
        """
        answer = await self._embed([self._text(number)])
        if self._expected is not None and not self._expected(answer):
            raise UnexpectedAnswerError("there was a cache hit instead of a miss, or the reverse")

    async def answer(self, request: Request) -> Answer:
        """See `Sender`."""
        return self._vectors(await self._embed(request.texts))

    async def close(self) -> None:
        """See `Sender`; does nothing, because `open_variants` registers the closing."""


async def open_variants(addresses: Sequence[str], redis_url: str, opened: AsyncExitStack) -> dict[str, Variant[Any]]:
    """Connects every variant; returns them by name, the bare stub first.

    Args:
        addresses: Endpoints of the instant service; most variants use only the first.
        redis_url: URL of an empty Redis; empty: without the variants that use Redis.
        opened: Closes the variants.
    """
    texts = passages(_TEXTS, Length.SHORT, seed=1)
    numbers = count()

    def known(number: int) -> str:
        return texts[number % _TEXTS]

    def new(number: int) -> str:
        return f"{known(number)} {next(numbers)}"

    async def client(
        settings: ClientSettings, joining: JoiningSettings = JoiningSettings(enabled=False)
    ) -> Variant[Any]:
        return Variant((await _client(settings, joining, opened)).embed, lambda answer: answer.vectors, known)

    async def cache(settings: CacheSettings, text: Callable[[int], str], hits: int) -> Variant[Any]:
        found = EmbeddingCache(await _client(one, JoiningSettings(enabled=False), opened), settings)
        opened.push_async_callback(found.close)
        if hits:
            await _fill(found, texts)
        return Variant(found.embed, lambda answer: answer.embeddings.vectors, text, lambda answer: answer.hits == hits)

    one, three = ClientSettings(address=addresses[0]), ClientSettings(address=",".join(addresses))
    variants = {
        BARE: Variant(_bare(one, opened), lambda answer: answer.vectors, known),
        CLIENT: await client(one),
        THREE: await client(three),
        JOINING: await client(one, JoiningSettings()),
        LIMIT: await client(one.model_copy(update={"concurrency": ConcurrencySettings()})),
        MISS: await cache(CacheSettings(), new, hits=0),
        HIT: await cache(CacheSettings(), known, hits=1),
    }
    if redis_url:
        shared: dict[str, Any] = {"redis_url": redis_url, "redis_timeout_s": _REDIS_TIMEOUT_S}
        variants[REDIS_MISS] = await cache(CacheSettings(**shared, namespace="misses"), new, hits=0)
        variants[REDIS_HIT] = await cache(CacheSettings(**shared, namespace="hits", memory_mib=0), known, hits=1)
    return variants


def _bare(settings: ClientSettings, opened: AsyncExitStack) -> Callable[[Sequence[str]], Awaitable[Embeddings]]:
    """Calls the stub over a channel with the client's options, and reads the response as the client does."""
    channel = open_channel(settings)
    opened.push_async_callback(channel.close)
    stub: Any = EmbeddingServiceStub(channel)

    async def embed(texts: Sequence[str]) -> Embeddings:
        request = pb.GenerateEmbeddingsRequest(texts=texts, normalize=True)
        response = await stub.GenerateEmbeddings(request, timeout=_DEADLINE_S)
        return read_embeddings(response)

    return embed


async def _client(settings: ClientSettings, joining: JoiningSettings, opened: AsyncExitStack) -> EmbeddingClient:
    """A client with its own metrics, as soon as it knows that all its endpoints are healthy."""
    client = EmbeddingClient(settings, ClientMetrics(CollectorRegistry()), joining)
    await opened.enter_async_context(client)
    async with asyncio.timeout(_UP_S):
        while not all(state.health is Health.SERVING for state in client.states()):  # noqa: ASYNC110  # there is no event
            await asyncio.sleep(0.01)
    return client


async def _fill(cache: EmbeddingCache, texts: Sequence[str]) -> None:
    """Waits until all texts are in the cache, because Redis is written in the background."""
    async with asyncio.timeout(_UP_S):
        while (await cache.embed(texts)).misses:  # noqa: ASYNC110  # there is no event
            await asyncio.sleep(0.01)


def same(answers: Sequence[Answer]) -> bool:
    """Whether all answers are the same vectors, bit for bit."""
    return all(np.array_equal(answer, answers[0]) for answer in answers)
