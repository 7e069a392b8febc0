"""Which endpoint gets the next call."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from torchless.clients.embedding import SERVICE_NAME
from torchless.clients.endpoint_state import Health
from torchless.clients.endpoints.endpoint import Endpoint
from torchless.clients.endpoints.pool import choose
from torchless.clients.metrics import ClientMetrics
from torchless.clients.settings import ClientSettings
from torchless.contracts.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from torchless.contracts.errors import ErrorKind, TorchlessError


class Endpoints:
    """Endpoints that nothing connects to: their channels are never used."""

    def __init__(self) -> None:
        self.made: list[Endpoint[Any]] = []
        self.now = 1000.0
        """Their clock, which a test may move."""
        self._metrics = ClientMetrics(CollectorRegistry())

    def __call__(self, *healths: Health, **settings: Any) -> list[Endpoint[Any]]:
        return [self.one(health, **settings) for health in healths]

    def one(self, health: Health = Health.SERVING, **settings: Any) -> Endpoint[Any]:
        address = f"127.0.0.1:{len(self.made) + 1}"
        endpoint: Endpoint[Any] = Endpoint(
            address,
            capability="embedding",
            service_name=SERVICE_NAME,
            make_stub=EmbeddingServiceStub,
            settings=ClientSettings(address=address, **{"slow_start_s": 0, **settings}),
            metrics=self._metrics.of_endpoint("embedding", address),
            clock=lambda: self.now,
        )
        endpoint.watch._become(health)
        self.made.append(endpoint)
        return endpoint


@pytest.fixture
async def endpoints() -> AsyncIterator[Endpoints]:
    endpoints = Endpoints()
    yield endpoints
    await asyncio.gather(*(each.close() for each in endpoints.made))


def shares(endpoints: list[Endpoint[Any]], calls: int = 3000, **how: Any) -> list[float]:
    counts = Counter(choose(endpoints, **how) for _ in range(calls))
    return [counts[each] / calls for each in endpoints]


def trip(endpoint: Endpoint[Any]) -> None:
    for _ in range(5):
        ticket = endpoint.breaker.begin(30)
        assert ticket is not None
        ticket.failed(TorchlessError(ErrorKind.UNREACHABLE, "no"))


async def test_choice_of_no_endpoints_is_none() -> None:
    assert choose([]) is None


async def test_equal_endpoints_get_equal_shares(endpoints: Endpoints) -> None:
    three = endpoints(*[Health.SERVING] * 3)
    assert all(0.28 < share < 0.39 for share in shares(three))


async def test_endpoint_with_fewer_calls_is_chosen_of_two(endpoints: Endpoints) -> None:
    three = endpoints(*[Health.SERVING] * 3)
    three[0].calls_in_flight, three[1].calls_in_flight = 9, 3
    most, middle, least = shares(three)
    assert most == 0
    assert 0.28 < middle < 0.39  # drawn together with the first
    assert 0.61 < least < 0.72


async def test_calls_in_flight_are_spread_nearly_evenly(endpoints: Endpoints) -> None:
    ten = endpoints(*[Health.SERVING] * 10)
    for _ in range(1000):
        chosen = choose(ten)
        assert chosen is not None
        chosen.calls_in_flight += 1
    numbers = [each.calls_in_flight for each in ten]
    assert max(numbers) - min(numbers) <= 10


async def test_healthy_endpoints_come_before_unknown_and_unhealthy_ones(endpoints: Endpoints) -> None:
    serving, unknown, leaving, gone = endpoints(Health.SERVING, Health.UNKNOWN, Health.NOT_SERVING, Health.UNREACHABLE)
    assert shares([serving, unknown, leaving, gone]) == [1, 0, 0, 0]
    assert shares([unknown, leaving, gone]) == [1, 0, 0]
    assert choose([gone]) is gone


async def test_endpoint_that_answers_comes_before_an_unreachable_one(endpoints: Endpoints) -> None:
    leaving, gone = endpoints(Health.NOT_SERVING, Health.UNREACHABLE)
    assert shares([leaving, gone]) == [1, 0]


async def test_draining_endpoint_gets_no_calls_while_another_is_healthy(endpoints: Endpoints) -> None:
    busy, leaving = endpoints(Health.SERVING, Health.NOT_SERVING)
    busy.calls_in_flight = 1000
    assert shares([busy, leaving]) == [1, 0]


async def test_untried_endpoints_come_first(endpoints: Endpoints) -> None:
    first, second = endpoints(Health.SERVING, Health.SERVING)
    second.calls_in_flight = 50
    assert shares([first, second], tried=[first]) == [0, 1]
    assert choose([first, second], tried=[first, second]) is first
    assert choose([first, second], tried=[first, second], only_others=True) is None


@pytest.mark.parametrize("health", [Health.NOT_SERVING, Health.UNREACHABLE])
async def test_only_others_excludes_unhealthy_endpoints(endpoints: Endpoints, health: Health) -> None:
    first, unwell = endpoints(Health.SERVING, health)
    assert choose([first, unwell], tried=[first], only_others=True) is None
    assert choose([first, unwell], tried=[first]) is first


async def test_endpoint_with_open_breaker_is_not_chosen(endpoints: Endpoints) -> None:
    first, second = endpoints(Health.SERVING, Health.UNREACHABLE)
    trip(first)
    assert shares([first, second]) == [0, 1]
    trip(second)
    assert choose([first, second]) is None


async def test_new_endpoint_gets_its_share_over_time(endpoints: Endpoints) -> None:
    times = iter((1000.0, 1005.0, 1010.0, 1100.0, 1100.0))
    endpoints.now = next(times)
    old, new = endpoints.one(slow_start_s=10), endpoints.one(slow_start_s=10)
    old._up_since = -math.inf
    old.calls_in_flight = 7
    for load in (10, 2, 1, 1):
        assert new.load == load
        endpoints.now = next(times)
    endpoints.now = 1000.0
    assert choose([old, new]) is old  # 8 calls against one that counts as ten
    old.calls_in_flight = 10
    assert choose([old, new]) is new


async def test_slow_start_follows_a_closed_breaker(endpoints: Endpoints) -> None:
    one = endpoints.one(slow_start_s=10, breaker={"open_s": 60})
    one._up_since = -math.inf
    trip(one)
    assert one.load == 1
    endpoints.now += 60
    ticket = one.breaker.begin(30)
    assert ticket is not None
    ticket.answered()
    assert one.load > 9


async def test_calls_are_weighted_by_latency(endpoints: Endpoints) -> None:
    quick, slow = endpoints(Health.SERVING, Health.SERVING)
    quick._log_latency, slow._log_latency = math.log(0.01), math.log(0.2)
    quick._latency_seen = slow._latency_seen = endpoints.now
    quick.calls_in_flight = 15
    assert shares([quick, slow]) == [1, 0]
    quick.calls_in_flight = 25
    assert shares([quick, slow]) == [0, 1]


async def test_single_slow_answer_does_not_make_an_endpoint_slow(endpoints: Endpoints) -> None:
    (one,) = endpoints(Health.SERVING)
    for latency in (*[0.01] * 20, 1.0):
        ticket = one.breaker.begin(30)
        assert ticket is not None
        with one.call(ticket):
            endpoints.now += latency
    assert one.latency_s is not None
    assert one.latency_s < 0.02


async def test_quicker_endpoint_is_preferred_until_the_memory_fades(endpoints: Endpoints) -> None:
    quick, slow = endpoints(Health.SERVING, Health.SERVING)
    for each, latency in ((quick, 0.01), (slow, 2.0)):
        ticket = each.breaker.begin(30)
        assert ticket is not None
        with each.call(ticket):
            endpoints.now += latency
    assert choose([quick, slow]) is quick
    endpoints.now += 100
    quick._log_latency, quick._latency_seen = math.log(0.01), endpoints.now  # it has had all the calls since
    assert choose([quick, slow]) is slow


async def test_endpoint_that_fails_fast_attracts_no_calls_and_recovers(endpoints: Endpoints) -> None:
    three = endpoints(*[Health.SERVING] * 3)

    def to_bad_one(calls: int, error: TorchlessError | None) -> int:
        """Calls to the first of calls one after another, while each of the others has many more."""
        for each in three[1:]:
            each.calls_in_flight = 600
        met = 0
        for _ in range(calls):
            chosen = choose(three)
            assert chosen is not None
            ticket = chosen.breaker.begin(30)
            assert ticket is not None
            fails = error if chosen is three[0] else None
            met += chosen is three[0]
            with suppress(TorchlessError), chosen.call(ticket):
                endpoints.now += 0.001 if fails else 0.02
                if fails:
                    raise fails
        return met

    assert to_bad_one(300, None) > 150  # it has the fewest calls
    assert to_bad_one(300, TorchlessError(ErrorKind.INTERNAL, "no")) < 50
    assert to_bad_one(300, TorchlessError(ErrorKind.INTERNAL, "no")) < 5
    endpoints.now += 30
    assert to_bad_one(300, None) > 150


class TestCalls:
    async def test_call_is_in_flight_until_any_end(self, endpoints: Endpoints) -> None:
        one = endpoints.one()
        for raised in (None, TorchlessError(ErrorKind.INTERNAL, "no"), asyncio.CancelledError(), ValueError()):
            ticket = one.breaker.begin(30)
            assert ticket is not None
            ends = nullcontext() if raised is None else pytest.raises(type(raised))
            with ends, one.call(ticket):
                assert one.calls_in_flight == 1
                if raised is not None:
                    raise raised
            assert one.calls_in_flight == 0

    @pytest.mark.parametrize("end", [asyncio.CancelledError, GeneratorExit, ValueError])
    async def test_half_open_probe_without_result_frees_its_slot(
        self, endpoints: Endpoints, end: type[BaseException]
    ) -> None:
        one = endpoints.one(breaker={"open_s": 60})
        trip(one)
        endpoints.now += 60
        ticket = one.breaker.begin(30)
        assert ticket is not None
        assert not one.breaker.admits
        with pytest.raises(end), one.call(ticket):
            raise end
        assert one.breaker.admits

    async def test_endpoint_may_be_closed_twice_and_after_a_cancelled_close(self, endpoints: Endpoints) -> None:
        one = endpoints.one()
        ticket = one.breaker.begin(30)
        assert ticket is not None
        with one.call(ticket):
            closing = asyncio.ensure_future(one.leave(60))
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait({closing})
            assert closing.cancelled()
            await one.close()
        await one.close()
        assert one.calls_in_flight == 0


async def test_silent_endpoint_gets_fewer_and_fewer_calls(endpoints: Endpoints) -> None:
    quick, hung = endpoints(Health.SERVING, Health.SERVING)
    quick._log_latency, quick._latency_seen = math.log(0.01), endpoints.now
    ticket = hung.breaker.begin(30)
    assert ticket is not None
    with hung.call(ticket):
        endpoints.now += 1.0
        quick._latency_seen = endpoints.now
        assert hung.latency_s == 1.0
        quick.calls_in_flight = 50
        assert shares([quick, hung]) == [1, 0]
