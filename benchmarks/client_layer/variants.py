"""The ways to call an embedding service that are compared: a bare stub, and the client layer with what it can do."""

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
_PATIENT_S = 5.0
"""A Redis that is late once would be left alone for a second, and a whole window of hits would be misses."""
T = TypeVar("T")


class UnexpectedAnswerError(Exception):
    """Calls did not go the way that they are named after, so their times say nothing of it."""


class Variant(Generic[T]):
    """One way to call; a `Sender`. One text a request.

    Args:
        embed: Calls, and reads the answer as far as a caller gets it read.
        vectors: The vectors of an answer.
        text: The text of a request, by its number.
        expected: Whether an answer came the way that this is named after; None: there is only one.
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
            UnexpectedAnswerError: The answer came another way.
        """
        answer = await self._embed([self._text(number)])
        if self._expected is not None and not self._expected(answer):
            raise UnexpectedAnswerError("a hit that was to be a miss, or the other way round")

    async def answer(self, asked: Request) -> Answer:
        """See `Sender`."""
        return self._vectors(await self._embed(asked.texts))

    async def close(self) -> None:
        """See `Sender`; whoever opened it closes it."""


async def open_variants(addresses: Sequence[str], redis_url: str, opened: AsyncExitStack) -> dict[str, Variant[Any]]:
    """Every way, by name, connected; the bare stub first.

    Args:
        addresses: Endpoints of the service that answers at once; the first alone where a way has one.
        redis_url: An empty Redis; empty: the ways with Redis are left out.
        opened: Closes what is opened.
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
    ways = {
        BARE: Variant(_bare(one, opened), lambda answer: answer.vectors, known),
        CLIENT: await client(one),
        THREE: await client(three),
        JOINING: await client(one, JoiningSettings()),
        LIMIT: await client(one.model_copy(update={"concurrency": ConcurrencySettings()})),
        MISS: await cache(CacheSettings(), new, hits=0),
        HIT: await cache(CacheSettings(), known, hits=1),
    }
    if redis_url:
        shared: dict[str, Any] = {"redis_url": redis_url, "redis_timeout_s": _PATIENT_S}
        ways[REDIS_MISS] = await cache(CacheSettings(**shared, namespace="misses"), new, hits=0)
        ways[REDIS_HIT] = await cache(CacheSettings(**shared, namespace="hits", memory_mib=0), known, hits=1)
    return ways


def _bare(settings: ClientSettings, opened: AsyncExitStack) -> Callable[[Sequence[str]], Awaitable[Embeddings]]:
    """The stub over a channel with the same options, and its response read as the client reads it."""
    channel = open_channel(settings)
    opened.push_async_callback(channel.close)
    stub: Any = EmbeddingServiceStub(channel)

    async def embed(texts: Sequence[str]) -> Embeddings:
        request = pb.GenerateEmbeddingsRequest(texts=texts, normalize=True)
        response = await stub.GenerateEmbeddings(request, timeout=_DEADLINE_S)
        return read_embeddings(response)

    return embed


async def _client(settings: ClientSettings, joining: JoiningSettings, opened: AsyncExitStack) -> EmbeddingClient:
    """A client, once it knows that all of its endpoints are well; its metrics stand beside nobody else's."""
    client = EmbeddingClient(settings, ClientMetrics(CollectorRegistry()), joining)
    await opened.enter_async_context(client)
    async with asyncio.timeout(_UP_S):
        while not all(state.health is Health.SERVING for state in client.states()):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    return client


async def _fill(cache: EmbeddingCache, texts: Sequence[str]) -> None:
    """Returns once all of `texts` are found in the cache: Redis is written to in the background."""
    async with asyncio.timeout(_UP_S):
        while (await cache.embed(texts)).misses:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


def same(answers: Sequence[Answer]) -> bool:
    """Whether all answers are the same vectors, bit for bit."""
    return all(np.array_equal(answer, answers[0]) for answer in answers)
