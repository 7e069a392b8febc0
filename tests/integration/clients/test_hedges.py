"""Hedged calls at real services."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from tests.integration.clients.conftest import Connect, Serve
from tests.integration.clients.services import Service, kind_of, until
from tests.integration.clients.test_calls import all_known, retries
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.endpoint_state import BreakerState
from torchless.contracts.errors import ErrorKind, TorchlessError

HEDGING = {"enabled": True, "min_s": 0.02}


async def hedged(connect: Connect, *services: Service, **settings: object) -> EmbeddingClient:
    """A client that knows how long a call takes."""
    client = connect(*services, **{"hedging": HEDGING, **settings})
    await all_known(client)
    for _ in range(64):
        await client.embed(["a"])
    return client


async def test_a_late_call_is_answered_by_another_and_cancelled_where_it_is_late(
    serve: Serve, connect: Connect, registry: CollectorRegistry
) -> None:
    slow, quick = await serve(2)
    client = await hedged(connect, slow, quick)
    slow.servicer.delay_s = 30
    slow.servicer.calls = 0
    client._pool.endpoints()[0]._log_latency = None  # else it may look slower than the other, and get nothing
    for _ in range(20):
        assert await kind_of(client.embed(["a"])) is None
    assert slow.servicer.calls
    await until(lambda: slow.servicer.cancelled == slow.servicer.calls)
    assert slow.servicer.waiting == 0
    assert retries(registry) == slow.servicer.calls
    assert [(each.calls_in_flight, each.breaker) for each in client.states()] == [(0, BreakerState.CLOSED)] * 2


async def test_without_a_budget_there_is_no_second(serve: Serve, connect: Connect, registry: CollectorRegistry) -> None:
    one, other = await serve(2)
    client = await hedged(connect, one, other, retry={"reserve": 0, "budget": 0})
    one.servicer.delay_s = other.servicer.delay_s = 0.2
    one.servicer.calls = other.servicer.calls = 0
    assert await kind_of(client.embed(["a"])) is None
    assert one.servicer.calls + other.servicer.calls == 1
    assert retries(registry) == 0
    assert registry.get_sample_value("torchless_client_retries_denied_total", {"capability": "embedding"}) == 1


async def test_with_one_endpoint_there_is_no_second_and_nothing_is_paid(
    serve: Serve, connect: Connect, registry: CollectorRegistry
) -> None:
    (only,) = await serve(1)
    client = await hedged(connect, only)
    only.servicer.delay_s, only.servicer.calls = 0.1, 0
    assert await kind_of(client.embed(["a"])) is None
    assert only.servicer.calls == 1
    assert retries(registry) == 0


@pytest.mark.parametrize("kind", [ErrorKind.OVERLOADED, ErrorKind.INTERNAL])
async def test_where_both_fail_the_caller_hears_of_it(serve: Serve, connect: Connect, kind: ErrorKind) -> None:
    services = await serve(2)
    client = await hedged(connect, *services)
    for service in services:
        service.servicer.delay_s, service.servicer.calls = 0.1, 0
        service.servicer.failure = TorchlessError(kind, "no")
    assert await kind_of(client.embed(["a"])) is kind
    assert sum(service.servicer.calls for service in services) == 2


async def test_a_caller_who_hangs_up_cancels_both(serve: Serve, connect: Connect) -> None:
    services = await serve(2)
    client = await hedged(connect, *services)
    for service in services:
        service.servicer.delay_s = 30
    call = asyncio.ensure_future(client.embed(["a"]))
    await until(lambda: all(service.servicer.waiting for service in services))
    call.cancel()
    await until(lambda: all(service.servicer.cancelled == 1 for service in services))
    assert [each.calls_in_flight for each in client.states()] == [0, 0]
