"""How the health of endpoints is heard, told and logged."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.integration.clients.conftest import Connect, Serve
from tests.integration.clients.services import Service, Told, kind_of, within
from tests.integration.clients.test_calls import all_known
from tests.integration.clients.test_closing import lists
from tests.resilience.proxy import Proxy
from tests.waiting import until
from torchless.cli.free_ports import free_port
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.endpoint_state import BreakerState, Health
from torchless.contracts.errors import ErrorKind, TorchlessError

LOGGER = "torchless.clients.endpoints"


def health(client: EmbeddingClient, index: int = 0) -> Health:
    return client.states()[index].health


class TestHeard:
    async def test_watch_reports_each_change(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(service)
        client.start()
        for serving, said in ((True, Health.SERVING), (False, Health.NOT_SERVING), (True, Health.SERVING)):
            await service.tell(serving=serving)
            await until(lambda said=said: health(client) is said)

    async def test_checks_replace_a_missing_watch(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1, Told.CHECK)
        client = connect(service, endpoint_health={"interval_s": 0.05, "timeout_s": 0.5})
        client.start()
        await until(lambda: health(client) is Health.SERVING)
        await service.tell(serving=False)
        await until(lambda: health(client) is Health.NOT_SERVING)
        await service.stop()
        await until(lambda: health(client) is Health.UNREACHABLE)
        await service.start()
        await until(lambda: health(client) is Health.SERVING)

    async def test_endpoint_keeps_its_last_health_after_its_watch_ends_in_order(
        self, serve: Serve, connect: Connect
    ) -> None:
        (service,) = await serve(1, Told.ONCE)
        client = connect(service, endpoint_health={"interval_s": 0.1})
        seen: list[Health] = []
        client.start()
        await until(lambda: health(client) is Health.SERVING)
        for _ in range(50):
            seen.append(health(client))
            await asyncio.sleep(0.01)
        assert set(seen) == {Health.SERVING}
        await service.tell(serving=False)
        await until(lambda: health(client) is Health.NOT_SERVING)
        await service.stop()
        await until(lambda: health(client) is Health.UNREACHABLE)

    async def test_endpoint_without_a_health_service_is_serving_while_it_answers(
        self, serve: Serve, connect: Connect
    ) -> None:
        (service,) = await serve(1, Told.NOTHING)
        client = connect(service, endpoint_health={"interval_s": 0.05})
        client.start()
        await until(lambda: health(client) is Health.SERVING)
        assert await client.ready()
        await service.stop()
        await until(lambda: health(client) is Health.UNREACHABLE)

    async def test_silent_endpoint_gets_calls_when_no_endpoint_is_healthy(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1, Told.SILENCE)
        client = connect(service, endpoint_health={"timeout_s": 0.05})
        client.start()
        await until(lambda: health(client) is Health.UNREACHABLE)
        assert await kind_of(client.embed(["a"])) is None

    async def test_missing_endpoint_is_unreachable_until_it_starts(self, connect: Connect) -> None:
        port = free_port()
        client = connect(f"127.0.0.1:{port}", connection={"reconnect_max_s": 0.1})
        client.start()
        await until(lambda: health(client) is Health.UNREACHABLE)
        async with Service(port=port):
            await until(lambda: health(client) is Health.SERVING)
        await until(lambda: health(client) is Health.UNREACHABLE)

    async def test_restarted_endpoint_is_serving_again(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1)
        client = connect(service, connection={"reconnect_max_s": 0.1})
        client.start()
        for _ in range(3):
            await until(lambda: health(client) is Health.SERVING)
            await service.stop()
            await until(lambda: health(client) is Health.UNREACHABLE)
            await service.start()
        await until(lambda: health(client) is Health.SERVING)

    async def test_ready_checks_health_now(self, serve: Serve, connect: Connect) -> None:
        one, other = await serve(2)
        client = connect(one, other)
        assert await client.ready()
        await one.tell(serving=False)
        assert await client.ready()
        await other.tell(serving=False)
        assert not await client.ready()
        await one.stop()
        assert not await client.ready()
        await other.stop()
        assert await kind_of(client.ready()) is ErrorKind.UNREACHABLE

    async def test_obstacle_is_the_reason_that_the_service_gives(self, serve: Serve, connect: Connect) -> None:
        (service,) = await serve(1, Told.REASON)
        client = connect(service)
        assert await client.obstacle() is None
        await service.tell(serving=False)
        obstacle = await client.obstacle()
        assert obstacle is not None
        assert (obstacle.kind, obstacle.message) == (
            ErrorKind.LOADING,
            "the service is loading the model m; retry shortly",
        )
        await service.stop()
        assert await kind_of(client.obstacle()) is ErrorKind.UNREACHABLE

    @pytest.mark.parametrize("told", [Told.ALL, Told.GARBLED])
    async def test_obstacle_without_a_readable_reason_names_the_log(
        self, serve: Serve, connect: Connect, told: Told
    ) -> None:
        (service,) = await serve(1, told)
        await service.tell(serving=False)
        obstacle = await connect(service).obstacle()
        assert obstacle is not None
        assert obstacle.kind is ErrorKind.UNREACHABLE
        assert "its log has the reason" in obstacle.message

    async def test_service_that_is_known_not_to_serve_is_not_asked_for_its_models(
        self, serve: Serve, connect: Connect
    ) -> None:
        (service,) = await serve(1)
        client = connect(service)
        assert client.may_serve()
        await all_known(client)
        assert client.may_serve()
        await service.tell(serving=False)
        await until(lambda: health(client) is Health.NOT_SERVING)
        assert not client.may_serve()

    async def test_breaker_of_an_endpoint_that_answers_again_lets_its_own_error_through(self, connect: Connect) -> None:
        """It was away, and is loading now: LOADING says more than CIRCUIT_OPEN, and closes the breaker."""
        service = Service(port=free_port())
        client = connect(service, retry={"attempts": 1}, connection={"reconnect_max_s": 0.05})
        for _ in range(6):
            await kind_of(client.embed(["a"]))
        assert client.states()[0].breaker is BreakerState.OPEN
        service.servicer.failure = TorchlessError(ErrorKind.LOADING, "the service is loading")
        async with service:
            await service.tell(serving=False)
            await until(lambda: health(client) is Health.NOT_SERVING)
            assert [await kind_of(client.embed(["a"])) for _ in range(6)] == [ErrorKind.LOADING] * 6
            assert client.states()[0].breaker is BreakerState.CLOSED


class TestLogged:
    async def test_log_has_each_state_change_once_and_no_calls(
        self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        (service,) = await serve(1)
        client = connect(service, breaker={"open_s": 0.2}, connection={"reconnect_max_s": 0.05}, retry={"attempts": 1})
        with caplog.at_level(logging.DEBUG, LOGGER):
            await all_known(client)
            await service.stop()
            await until(lambda: health(client) is Health.UNREACHABLE)
            for _ in range(30):
                await kind_of(client.embed(["a secret text"]))
            await service.start()
            await until(lambda: health(client) is Health.SERVING)
            await until(lambda: client.states()[0].next_probe_s == 0)
            await client.embed(["a secret text"])
            await asyncio.sleep(0.05)
        said = [record.getMessage() for record in caplog.records if record.name.startswith(LOGGER)]
        about = f"embedding endpoint {service.address}"
        assert sorted(said) == sorted(
            [
                f"{about} is serving",
                f"{about} is unreachable",
                f"{about}: circuit breaker is open",
                f"{about} is serving",
                f"{about}: circuit breaker is half_open",
                f"{about}: circuit breaker is closed",
            ]
        )

    async def test_removed_endpoint_logs_nothing_more(
        self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        old, new = await serve(2)
        client = connect(old, new)
        await all_known(client)
        await client.reconfigure(lists(new))
        await asyncio.sleep(0.05)
        with caplog.at_level(logging.DEBUG, LOGGER):
            await old.stop()
            await asyncio.sleep(0.05)
        assert not [record for record in caplog.records if old.address in record.getMessage()]

    async def test_broken_watch_is_opened_again_ever_more_slowly(
        self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        (service,) = await serve(1)
        async with Proxy(service.port) as proxy:
            client = connect(proxy.address, connection={"reconnect_max_s": 0.05, "reconnect_min_s": 0.01})
            client.start()
            with caplog.at_level(logging.DEBUG, LOGGER):
                for _ in range(100):
                    if health(client) is Health.SERVING:
                        proxy.reset_all()
                    await asyncio.sleep(0.02)
        assert proxy.resets / 2 < 12


class TestMetrics:
    @staticmethod
    def value(registry: CollectorRegistry, name: str, service: Service, **labels: str) -> float | None:
        labels |= {"capability": "embedding", "endpoint": service.address}
        return registry.get_sample_value(f"torchless_client_{name}", labels)

    async def test_metrics_show_the_state_of_the_endpoints(
        self, serve: Serve, connect: Connect, registry: CollectorRegistry
    ) -> None:
        (service,) = await serve(1)
        client = connect(service, breaker={"open_s": 30, "failures": 3}, retry={"attempts": 1})
        await all_known(client)
        assert self.value(registry, "endpoint_up", service) == 1
        service.servicer.delay_s = 0.3
        call = asyncio.ensure_future(client.embed(["a"]))
        await until(lambda: service.servicer.waiting == 1)
        assert self.value(registry, "in_flight", service) == 1
        await call
        assert self.value(registry, "in_flight", service) == 0
        assert self.value(registry, "attempts_total", service, outcome="OK") == 1
        service.servicer.delay_s = 0
        service.servicer.failure = TorchlessError(ErrorKind.UNREACHABLE, "not ready")
        for _ in range(5):
            await kind_of(client.embed(["a"]))
        assert self.value(registry, "attempts_total", service, outcome="UNREACHABLE") == 3
        assert self.value(registry, "breaker_state", service) == 2
        assert self.value(registry, "breaker_trips_total", service) == 1
        probe = self.value(registry, "breaker_next_probe_timestamp_seconds", service)
        assert probe is not None
        assert 20 < probe - time.time() <= 30.1
        await client.reconfigure(lists(service, breaker={"open_s": 600}))
        probe = self.value(registry, "breaker_next_probe_timestamp_seconds", service)
        assert probe is not None
        assert 500 < probe - time.time() <= 600.1
        outcomes = {
            sample.labels["outcome"]: sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "torchless_client_calls_total"
        }
        assert outcomes == {"OK": 1, "UNREACHABLE": 3, "CIRCUIT_OPEN": 2}

    async def test_series_of_a_removed_endpoint_are_removed(
        self, serve: Serve, connect: Connect, registry: CollectorRegistry
    ) -> None:
        old, new = await serve(2)
        old.servicer.delay_s = new.servicer.delay_s = 30
        breaker = {"failures": 1, "deadline_counts_from_s": 0}
        client = connect(old, breaker=breaker)
        call = asyncio.ensure_future(client.embed(["a"], context=within(0.3)))
        await until(lambda: old.servicer.waiting == 1)
        await client.reconfigure(lists(new, breaker=breaker))
        assert await kind_of(call) is ErrorKind.DEADLINE

        def shown() -> set[str]:
            samples = [sample for metric in registry.collect() for sample in metric.samples]
            return {sample.labels["endpoint"] for sample in samples if "endpoint" in sample.labels}

        await until(lambda: shown() == {new.address})
        await asyncio.sleep(0.05)
        assert shown() == {new.address}
        call = asyncio.ensure_future(client.embed(["a"]))
        await until(lambda: new.servicer.waiting == 1)
        await client.close()
        assert await kind_of(call) is ErrorKind.UNREACHABLE
        assert shown() == set()

    async def test_metrics_of_an_endpoint_stay_while_another_client_uses_it(
        self, serve: Serve, connect: Connect, registry: CollectorRegistry
    ) -> None:
        first, second = await serve(2)
        one, other = connect(first), connect(first)
        await all_known(one)
        await all_known(other)
        await one.close()
        first.servicer.delay_s = 0.2
        call = asyncio.ensure_future(other.embed(["a"]))
        await until(lambda: first.servicer.waiting == 1)
        assert self.value(registry, "in_flight", first) == 1
        await other.reconfigure(lists(second))
        await other.reconfigure(lists(first))
        await call
        await until(lambda: health(other) is Health.SERVING)
        await until(lambda: self.value(registry, "in_flight", first) == 0)
        assert self.value(registry, "endpoint_up", first) == 1

    def test_metrics_of_several_processes_are_reset(self, tmp_path: Path) -> None:
        program = """
import asyncio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from tests.integration.clients.services import Service
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.settings import ClientSettings

async def main():
    async with Service() as one, Service() as other:
        async with EmbeddingClient(one.address) as client:
            await client.embed(["a"])
            await client.reconfigure(ClientSettings(address=other.address))
            await client.embed(["a"])
            while client._pool._leaving or client.states()[0].health != "serving":
                await asyncio.sleep(0.01)
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
            text = generate_latest(registry).decode()
            up = [line for line in text.splitlines() if line.startswith("torchless_client_endpoint_up{")]
            print(sorted((other.address in line, float(line.split()[-1])) for line in up))

asyncio.run(main())
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == "[(False, 0.0), (True, 1.0)]\n", done.stderr

    async def test_states_show_the_breaker(self, connect: Connect) -> None:
        client = connect(f"127.0.0.1:{free_port()}", retry={"attempts": 1})
        for _ in range(6):
            await kind_of(client.embed(["a"]))
        (state,) = client.states()
        assert (state.breaker, state.trips, state.calls_in_flight) == (BreakerState.OPEN, 1, 0)
        assert 50 < state.next_probe_s <= 60
