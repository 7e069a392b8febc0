"""The in-process GPU service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from torchless.clients.call import CallContext
from torchless.clients.gpu import EventKind, GPUClient
from torchless.clients.testing import GPUService, device
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.gpu.v1 import gpu_pb2 as pb
from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceStub


@pytest.fixture
async def service() -> AsyncIterator[GPUService]:
    async with GPUService([device("GPU-a", total_mb=1000), device("GPU-b", 1, total_mb=2000)]) as service:
        yield service


@pytest.fixture
async def client(service: GPUService) -> AsyncIterator[GPUClient]:
    async with GPUClient(service.address) as client:
        yield client


async def test_devices_are_those_given(client: GPUClient, service: GPUService) -> None:
    assert tuple(await client.devices()) == service.devices == (await client.status()).devices


async def test_lease_takes_memory_until_it_is_released(client: GPUClient) -> None:
    lease = await client.allocate(600, "tests", context=CallContext(tenant="t"))
    assert ([part.uuid for part in lease.devices], lease.tenant) == (["GPU-a"], "t")
    first, _ = await client.devices()
    assert (first.memory_leased_mb, first.memory_allocatable_mb) == (600, 400)
    other = await client.allocate(600, "tests")
    assert [part.uuid for part in other.devices] == ["GPU-b"]
    await client.release(lease.id)
    assert [each.id for each in (await client.status()).allocations] == [other.id]


async def test_renew_prolongs_a_lease_and_an_expired_one_is_gone(client: GPUClient) -> None:
    lease = await client.allocate(1, "tests", ttl_s=100)
    assert (await client.renew(lease.id)).expires >= lease.expires
    await client.renew(lease.id, ttl_s=0.01)
    await asyncio.sleep(0.02)
    with pytest.raises(TorchlessError) as caught:
        await client.renew(lease.id)
    assert (caught.value.kind, caught.value.metadata["reason"]) == (ErrorKind.NOT_FOUND, "expired")


async def test_idempotency_key_returns_the_same_lease_or_refuses_another_request(client: GPUClient) -> None:
    first = await client.allocate(1, "tests", idempotency_key="k")
    assert (await client.allocate(1, "tests", idempotency_key="k")).id == first.id
    with pytest.raises(TorchlessError) as caught:
        await client.allocate(2, "tests", idempotency_key="k")
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS


async def test_tenants_have_idempotency_keys_of_their_own(client: GPUClient) -> None:
    leases = [
        await client.allocate(1, "tests", idempotency_key="k", context=CallContext(tenant=tenant)) for tenant in "abab"
    ]
    assert [lease.tenant for lease in leases] == ["a", "b", "a", "b"]
    assert len({lease.id for lease in leases}) == 2


async def test_requests_without_an_idempotency_key_get_a_lease_each(service: GPUService) -> None:
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub: Any = GPUServiceStub(channel)
        leases = [await stub.AllocateGPU(pb.AllocateGPURequest(memory_mb=mb, holder="tests")) for mb in (1, 1, 2)]
    assert len({lease.allocation.id for lease in leases}) == 3


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"memory_mb": 3000}, ErrorKind.INPUT_TOO_LARGE),
        ({"memory_mb": 1, "device_uuids": ["GPU-x"]}, ErrorKind.NOT_FOUND),
        ({"memory_mb": 1500, "device_uuids": ["GPU-b"]}, ErrorKind.OVERLOADED),
        ({"memory_mb": 1, "exclusive": True, "device_count": 2}, ErrorKind.OVERLOADED),
    ],
)
async def test_service_refuses_leases_that_do_not_fit(
    client: GPUClient, arguments: dict[str, Any], kind: ErrorKind
) -> None:
    await client.allocate(600, "tests", device_uuids=["GPU-b"])
    with pytest.raises(TorchlessError) as caught:
        await client.allocate(**arguments, holder="tests")
    assert caught.value.kind is kind


async def test_exclusive_lease_leaves_no_memory_to_others(client: GPUClient) -> None:
    await client.allocate(1, "tests", exclusive=True)
    assert [each.memory_allocatable_mb for each in await client.devices()] == [0, 2000]


async def test_service_without_devices_is_unavailable(client: GPUClient, service: GPUService) -> None:
    service.devices = ()
    assert not (await client.status()).available
    with pytest.raises(TorchlessError) as caught:
        await client.allocate(1, "tests")
    assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE


async def test_watch_reports_changes_with_their_events(client: GPUClient) -> None:
    async with aclosing(client.watch()) as updates:
        assert (await anext(updates)).status.allocations == ()
        lease = await client.allocate(1, "tests")
        update = await anext(updates)
    assert [each.id for each in update.status.allocations] == [lease.id]
    assert [(event.kind, event.allocation_id) for event in update.events] == [(EventKind.ALLOCATED, lease.id)]
