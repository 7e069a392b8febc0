"""What tests control and see of every in-process service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from tests.waiting import until
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.sync import SyncEmbeddingClient
from torchless.clients.testing import EmbeddingService
from torchless.contracts.errors import ErrorKind, TorchlessError

OVERLOADED = TorchlessError(ErrorKind.OVERLOADED, "try later", retry_after_s=3)


async def kind_of(client: EmbeddingClient, timeout_s: float = 10) -> ErrorKind | None:
    try:
        await client.embed(["a"], context=CallContext(deadline=Deadline.after(timeout_s)))
    except TorchlessError as error:
        return error.kind
    return None


async def answers(client: EmbeddingClient) -> bool:
    return await kind_of(client) is None


async def test_service_records_requests_with_their_metadata_and_deadline() -> None:
    async with EmbeddingService() as service, EmbeddingClient(service.address) as client:
        await client.embed(["a", "b"], context=CallContext(tenant="t", deadline=Deadline.after(7)))
        (received,) = service.requests
    assert list(received.message.texts) == ["a", "b"]
    assert received.metadata["x-tenant-id"] == "t"
    assert received.deadline_s == pytest.approx(7, abs=1)


async def test_fail_next_fails_only_the_next_requests_and_error_all_of_them() -> None:
    async with EmbeddingService() as service, EmbeddingClient(service.address) as client:
        service.fail_next(OVERLOADED, times=2)
        kinds = [await kind_of(client) for _ in range(3)]
        service.error = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "no device")
        kinds += [await kind_of(client) for _ in range(2)]
    assert kinds == [ErrorKind.OVERLOADED] * 2 + [None] + [ErrorKind.GPU_UNAVAILABLE] * 2


async def test_errors_keep_their_message_and_retry_delay() -> None:
    async with EmbeddingService() as service, EmbeddingClient(service.address) as client:
        service.fail_next(OVERLOADED)
        with pytest.raises(TorchlessError) as caught:
            await client.embed(["a"])
    assert (caught.value.message, caught.value.retry_after_s) == ("try later", 3)


async def test_latency_delays_answers_and_expired_calls_are_counted_as_cancelled() -> None:
    async with EmbeddingService() as service, EmbeddingClient(service.address) as client:
        service.latency_s = 0.05
        started = time.monotonic()
        assert await kind_of(client) is None
        assert time.monotonic() - started >= 0.05
        service.latency_s = 60
        assert await kind_of(client, timeout_s=0.05) is ErrorKind.DEADLINE
        await until(lambda: service.cancelled == 1)  # the service learns of it a moment later
        assert service.in_flight == 0


async def test_lower_latency_answers_waiting_requests() -> None:
    async with EmbeddingService() as service, EmbeddingClient(service.address) as client:
        service.latency_s = 60
        call = asyncio.create_task(kind_of(client))
        await until(lambda: service.in_flight == 1)
        service.latency_s = 0
        assert await call is None


async def test_serving_sets_the_reported_health() -> None:
    async with EmbeddingService() as service, EmbeddingClient(service.address) as client:
        assert await client.ready()
        service.serving = False
        assert not await client.ready()
        service.serving = True
        assert await client.ready()


async def test_stopped_service_is_unreachable_and_starts_again_on_its_port() -> None:
    service = EmbeddingService()
    async with service:
        address = service.address
        async with EmbeddingClient(address) as client:
            assert await kind_of(client) is None
            await service.stop()
            assert await kind_of(client, timeout_s=0.5) is ErrorKind.UNREACHABLE
            await service.start()
            assert service.address == address
            await until(lambda: answers(client))


async def test_reset_restores_the_behaviour_and_forgets_requests() -> None:
    async with EmbeddingService() as service, EmbeddingClient(service.address) as client:
        service.error, service.serving, service.latency_s = OVERLOADED, False, 1
        service.fail_next(OVERLOADED)
        service.reset()
        assert await kind_of(client) is None
        assert await client.ready()
        assert len(service.requests) == 1


def test_service_runs_for_blocking_code() -> None:
    with EmbeddingService() as service, SyncEmbeddingClient(service.address) as client:
        assert client.embed(["a"]).vectors.shape == (1, 16)
        service.serving = False
        assert not client.ready()
        service.fail_next(OVERLOADED)
        with pytest.raises(TorchlessError, match="try later"):
            client.embed(["a"])
        assert len(service.requests) == 2


def test_a_process_ends_with_a_service_that_was_not_stopped() -> None:
    code = """
from torchless.clients.sync import SyncEmbeddingClient
from torchless.clients.testing import EmbeddingService
service = EmbeddingService().__enter__()
print(len(SyncEmbeddingClient(service.address).embed(["a"]).vectors))
"""
    command = [sys.executable, "-X", "dev", "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1\n", "")
