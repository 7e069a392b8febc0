"""The lease of a model bento, against the real GPU service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bentos.models.device_lease import DeviceLease, LeaseSettings
from tests.integration.gpu.conftest import PATIENCE_S, Bento, client_of, serving
from tests.integration.gpu.stand_in import GPU_IS_LOST, Machine
from tests.waiting import until
from torchless.cli.free_ports import free_port
from torchless.clients.gpu import Allocation, AllocationState, GPUClient
from torchless.contracts.errors import ErrorKind, TorchlessError


@pytest.fixture(autouse=True)
def _visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the variable that the lease sets."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as it was")


@pytest.fixture
async def leases() -> AsyncIterator[list[DeviceLease]]:
    """Leases that are released after the test."""
    made: list[DeviceLease] = []
    yield made
    for each in made:
        await each.release()


def settings(bento: Bento, **more: Any) -> LeaseSettings:
    return LeaseSettings(**{"address": bento.address, "memory_mb": 4_000, "wait_s": 0, **more})


async def held(client: GPUClient) -> list[Allocation]:
    return list((await client.status()).allocations)


async def test_no_lease_is_taken_without_an_address() -> None:
    lease = DeviceLease(LeaseSettings(), "embedding")
    await lease.take()
    assert (lease.allocation, os.environ["CUDA_VISIBLE_DEVICES"]) == (None, "as it was")
    await lease.release()


def test_lease_settings_require_a_size_with_an_address() -> None:
    with pytest.raises(ValueError, match="memory_mb"):
        LeaseSettings(address="localhost:1")


async def test_lease_makes_its_devices_visible_and_is_released(
    bento: Bento, client: GPUClient, leases: list[DeviceLease]
) -> None:
    lease = DeviceLease(settings(bento, device_count=2, exclusive=True), "embedding")
    leases.append(lease)
    await lease.take()
    (found,) = await held(client)
    assert (found.holder, found.pid, found.exclusive) == ("embedding", os.getpid(), True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    await lease.release()
    assert await held(client) == []
    await lease.release()


async def test_lease_is_renewed_beyond_its_ttl(bento: Bento, client: GPUClient, leases: list[DeviceLease]) -> None:
    ttl_s = 0.6
    lease = DeviceLease(settings(bento, ttl_s=ttl_s, send_pid=False, holder="named"), "embedding")
    leases.append(lease)
    await lease.take()
    (first,) = await held(client)

    async def is_renewed_after_its_first_end() -> bool:
        return any(each.expires > first.expires + ttl_s for each in await held(client))

    await until(is_renewed_after_its_first_end, bento.log.read_text, within_s=PATIENCE_S)
    (later,) = await held(client)
    assert (later.id, later.pid, later.holder) == (first.id, None, "named")
    assert later.expires > first.expires


async def test_vanished_lease_is_taken_again_on_the_same_device(
    bento: Bento, client: GPUClient, leases: list[DeviceLease], log: pytest.LogCaptureFixture
) -> None:
    lease = DeviceLease(settings(bento, ttl_s=0.6), "embedding")
    leases.append(lease)
    await lease.take()
    (first,) = await held(client)
    await client.release(first.id)
    # The other device would fit better now.
    await client.allocate(4_400, "stranger", device_uuids=["GPU-a"])

    async def is_back() -> bool:
        return any(each.holder == "embedding" for each in await held(client))

    await until(is_back, bento.log.read_text, within_s=PATIENCE_S)
    again = next(each for each in await held(client) if each.holder == "embedding")
    assert again.id != first.id
    assert again.devices == first.devices
    assert "taking another" in log.text


async def test_lease_waits_for_free_memory(
    bento: Bento, client: GPUClient, leases: list[DeviceLease], log: pytest.LogCaptureFixture
) -> None:
    in_the_way = await client.allocate(9_000, "stranger", device_uuids=["GPU-a"])
    await client.allocate(19_000, "stranger", device_uuids=["GPU-b"])
    lease = DeviceLease(settings(bento, wait_s=30), "embedding")
    leases.append(lease)
    taking = asyncio.create_task(lease.take())
    await until(lambda: "no lease yet" in log.text)
    assert not taking.done()
    await client.release(in_the_way.id)
    async with asyncio.timeout(30):
        await taking
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"


async def test_lease_gives_up_after_wait_s(bento: Bento, client: GPUClient, leases: list[DeviceLease]) -> None:
    await client.allocate(9_000, "stranger", device_uuids=["GPU-a"])
    await client.allocate(19_000, "stranger", device_uuids=["GPU-b"])
    lease = DeviceLease(settings(bento, wait_s=0.5), "embedding")
    leases.append(lease)
    with pytest.raises(TorchlessError) as caught:
        await lease.take()
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "as it was"


async def test_error_that_waiting_cannot_resolve_is_raised_at_once(bento: Bento, leases: list[DeviceLease]) -> None:
    lease = DeviceLease(settings(bento, memory_mb=50_000, wait_s=3600), "embedding")
    leases.append(lease)
    with pytest.raises(TorchlessError) as caught:
        await lease.take()
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE


async def test_lease_without_a_gpu_is_gpu_unavailable_at_once(machine: Machine, leases: list[DeviceLease]) -> None:
    machine.gpus.clear()
    machine.tell()
    with serving(machine) as none:
        async with client_of(none):
            lease = DeviceLease(settings(none, wait_s=3600), "embedding")
            leases.append(lease)
            with pytest.raises(TorchlessError) as caught:
                await lease.take()
    assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE


async def test_lease_waits_for_a_late_service_and_ends_without_a_vanished_one(
    machine: Machine, leases: list[DeviceLease], log: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    lease = DeviceLease(LeaseSettings(address=f"127.0.0.1:{port}", memory_mb=100, wait_s=60, deadline_s=2), "embedding")
    leases.append(lease)
    taking = asyncio.create_task(lease.take())
    await until(lambda: "no lease yet" in log.text)
    assert not taking.done()
    with serving(machine, port=port) as bento:
        async with asyncio.timeout(60):
            await taking
        bento.kill()
    await lease.release()
    assert "could not be released" in log.text


async def test_lost_lease_is_logged(machine: Machine, leases: list[DeviceLease], log: pytest.LogCaptureFixture) -> None:
    with serving(machine) as bento:
        async with client_of(bento) as client:
            lease = DeviceLease(settings(bento, ttl_s=2.0), "embedding")
            leases.append(lease)
            await lease.take()
            machine.gpus[0].code = GPU_IS_LOST
            machine.tell()

            async def is_told() -> bool:
                return "the lease is LOST" in log.text

            await until(is_told, bento.log.read_text, within_s=PATIENCE_S)
            assert [each.state for each in await held(client)] in ([AllocationState.LOST], [])
            await lease.release()
