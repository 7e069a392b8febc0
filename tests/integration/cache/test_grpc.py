"""The cache before the real client and a real gRPC service."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.clients.cache.service import same
from tests.waiting import until
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient, EmbedOptions, Granularity, Truncation
from torchless.clients.endpoint_state import Health
from torchless.clients.settings import ClientSettings
from torchless.clients.sync import background
from torchless.clients.testing import EMBEDDING_MODEL as MODEL
from torchless.clients.testing import EmbeddingService
from torchless.contracts.errors import ErrorKind, TorchlessError

Scenario = Callable[[EmbeddingClient, EmbeddingCache], Coroutine[Any, Any, None]]
REFUSING = EmbedOptions(truncation=Truncation.NONE)
TOO_LONG = "word " * 100


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingService]:
    with EmbeddingService() as server:
        yield server


@pytest.fixture
def play(server: EmbeddingService) -> Iterator[Callable[[Scenario], None]]:
    """Runs a scenario with a client of the service and a cache before it."""

    async def run(scenario: Scenario) -> None:
        async with EmbeddingClient(server.address) as client:
            cache = EmbeddingCache(client, CacheSettings(redis_url=""))
            try:
                await scenario(client, cache)
            finally:
                await cache.close()

    server.reset()
    yield lambda scenario: background.current().run(run(scenario))
    server.reset()


def test_cached_answers_equal_the_services_bit_for_bit(play: Callable[[Scenario], None]) -> None:
    async def scenario(client: EmbeddingClient, cache: EmbeddingCache) -> None:
        choices = [
            EmbedOptions(),
            EmbedOptions(model=MODEL.id, normalize=False),
            EmbedOptions(dimensions=8, prompt_name="query"),
            EmbedOptions(granularity=Granularity.TOKEN),
        ]
        for options in choices:
            for inputs in (["a b", "c"], ["c", "d e f", "a b", "c"], ["d e f", "a b"]):
                expected = await client.embed(inputs, options)
                assert same((await cache.embed(inputs, options)).embeddings, expected)
        ids = await client.embed([[5, 6], [7]])
        assert same((await cache.embed([[5, 6], [7]])).embeddings, ids)
        assert same((await cache.embed([[5, 6], [7]])).embeddings, ids)

    play(scenario)


def test_replaced_model_is_used_as_soon_as_its_service_is_back() -> None:
    async def scenario() -> None:
        service = EmbeddingService()
        await service.start()
        async with EmbeddingClient(service.address) as client:
            cache = EmbeddingCache(
                client, CacheSettings(), is_down=client.is_down, endpoint_changes=client.endpoint_changes
            )
            await cache.embed(["a"])
            assert (await cache.embed(["a"])).hits == 1
            for revision, hits in (("2", 0), ("2", 1), ("3", 0)):
                await service.stop()
                await until(lambda: client.states()[0].health is Health.UNREACHABLE)
                service.model = replace(MODEL, revision=revision)
                answer = await cache.embed(["a"])
                assert answer.degraded, "what was known last"
                await service.start()
                await until(lambda: client.states()[0].health is Health.SERVING)
                answer = await cache.embed(["a"])
                assert (answer.embeddings.revision, answer.hits, answer.degraded) == (revision, hits, False)
            await cache.close()
        await service.stop()

    background.current().run(scenario())


def test_model_of_the_endpoint_that_is_left_is_used() -> None:
    async def scenario() -> None:
        one, other = EmbeddingService(), EmbeddingService(replace(MODEL, revision="2"))
        async with one, other, EmbeddingClient(one.address) as client:
            cache = EmbeddingCache(client, CacheSettings(), endpoint_changes=client.endpoint_changes)
            assert (await cache.embed(["a"])).embeddings.revision == MODEL.revision
            await client.reconfigure(ClientSettings(address=other.address))
            assert (await cache.embed(["a"])).embeddings.revision == "2"
            await client.reconfigure(ClientSettings(address=one.address))
            answer = await cache.embed(["a"])
            assert (answer.embeddings.revision, answer.hits) == (MODEL.revision, 1)
            await cache.close()

    background.current().run(scenario())


def test_the_services_refusals_name_this_request(play: Callable[[Scenario], None], server: EmbeddingService) -> None:
    async def scenario(client: EmbeddingClient, cache: EmbeddingCache) -> None:
        await cache.embed(["a", "b"], REFUSING)
        inputs = ["a", "new", "b", TOO_LONG]
        with pytest.raises(TorchlessError) as direct:
            await client.embed(inputs, REFUSING)
        with pytest.raises(TorchlessError) as cached:
            await cache.embed(inputs, REFUSING)
        assert cached.value.kind is direct.value.kind is ErrorKind.INPUT_TOO_LARGE
        assert cached.value.message == direct.value.message
        assert cached.value.violations == direct.value.violations
        assert [each.field for each in cached.value.violations] == ["texts[3]"]

    play(scenario)
    assert list(server.messages[-1].texts) == ["new", TOO_LONG]


def test_invalid_unicode_is_refused_by_its_index(play: Callable[[Scenario], None]) -> None:
    async def scenario(client: EmbeddingClient, cache: EmbeddingCache) -> None:
        await cache.embed(["a", "b"])
        with pytest.raises(TorchlessError) as caught:
            await cache.embed(["a", "b", "\ud800"])
        assert caught.value.kind is ErrorKind.INVALID_INPUT
        assert [each.field for each in caught.value.violations] == ["texts[2]"]

    play(scenario)


def test_overloaded_and_lost_services_keep_their_error_kinds(
    play: Callable[[Scenario], None], server: EmbeddingService
) -> None:
    async def scenario(client: EmbeddingClient, cache: EmbeddingCache) -> None:
        await cache.embed(["a"])
        server.error = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "no device")
        with pytest.raises(TorchlessError) as caught:
            await cache.embed(["a", "new"], context=CallContext(deadline=Deadline.after(5)))
        assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE
        answer = await cache.embed(["a"])
        assert answer.degraded
        server.error = None
        await cache.embed(["new"])
        assert not (await cache.embed(["a"])).degraded

    play(scenario)
