"""The GPU service: devices, their leases and events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING
from uuid import uuid4

from torchless.clients.base import CapabilityClient
from torchless.clients.call import CallContext
from torchless.clients.caller import Caller
from torchless.clients.gpu_types import (
    AllocatedDevice,
    Allocation,
    AllocationState,
    EventKind,
    GPUDevice,
    GPUEvent,
    GPUProcess,
    GPUStatus,
    LostDevice,
    StatusUpdate,
    Threshold,
)
from torchless.clients.mapping import build, reader
from torchless.contracts.gpu.v1 import gpu_pb2 as pb
from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceStub

if TYPE_CHECKING:
    from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceAsyncStub

__all__ = [
    "GPUClient",
    "GPUStatus",
    "GPUDevice",
    "GPUProcess",
    "LostDevice",
    "Allocation",
    "AllocatedDevice",
    "AllocationState",
    "StatusUpdate",
    "GPUEvent",
    "EventKind",
    "Threshold",
    "SERVICE_NAME",
]

SERVICE_NAME = "torchless.gpu.v1.GPUService"
_read_status = reader(pb.Status, GPUStatus)
_read_device = reader(pb.Device, GPUDevice)
_read_allocation = reader(pb.Allocation, Allocation)
_read_update = reader(pb.WatchStatusResponse, StatusUpdate)


class GPUClient(CapabilityClient):
    """Calls one GPU service.

        async with GPUClient("localhost:50056") as client:
            lease = await client.allocate(8000, "trainer")

    Every method raises only `TorchlessError`; its kind says what went wrong.

    Args:
        settings: How to call the service, or only its address.
        metrics: Where calls and endpoints are counted; None: in Prometheus' default registry.
    """

    capability = "gpu"
    service_name = SERVICE_NAME
    make_stub = GPUServiceStub
    _caller: Caller[GPUServiceAsyncStub]

    async def status(self, context: CallContext = CallContext()) -> GPUStatus:
        """The driver, the devices and the leases; where there is no device, the reason."""
        response = await self._caller.unary(lambda stub: stub.GetStatus, pb.GetStatusRequest(), context)
        return _read_status(response.status)

    async def devices(self, context: CallContext = CallContext()) -> list[GPUDevice]:
        """The devices present; empty without a GPU or its driver."""
        response = await self._caller.unary(lambda stub: stub.ListDevices, pb.ListDevicesRequest(), context)
        return [_read_device(device) for device in response.devices]

    async def allocate(
        self,
        memory_mb: int,
        holder: str,
        *,
        device_count: int | None = None,
        exclusive: bool = False,
        tenant: str = "",
        ttl_s: float | None = None,
        idempotency_key: str = "",
        pid: int | None = None,
        device_uuids: Sequence[str] = (),
        context: CallContext = CallContext(),
    ) -> Allocation:
        """Leases memory on one or several devices: on all of them or on none.

        Args:
            memory_mb: Memory to lease on each device, in MiB, at least 1.
            holder: Who holds the lease, 1 to 256 characters.
            device_count: Number of devices; None: 1.
            exclusive: Takes only devices without a lease, and no other lease may share them afterwards.
            tenant: The tenant that it is for; empty: the context's tenant.
            ttl_s: Seconds until the lease ends unless it is renewed; None: the service's default.
            idempotency_key: While its lease lasts, the same key with an equal request returns that lease again.
            pid: The holder's process id as the driver sees it; None in a container with its own process ids.
            device_uuids: Only these devices; empty: any.
            context: Tenant, request id, trace and deadline of the call.

        Raises:
            TorchlessError: INVALID_INPUT, INPUT_TOO_LARGE (no device is large enough), NOT_FOUND (a device of
                `device_uuids`), ALREADY_EXISTS (the key belongs to a different request), OVERLOADED (not enough memory
                is free now) or GPU_UNAVAILABLE.
        """
        request = build(
            pb.AllocateGPURequest,
            memory_mb=memory_mb,
            device_count=device_count,
            exclusive=exclusive,
            holder=holder,
            tenant=tenant,
            ttl_s=ttl_s,
            # Every call has a key, so that a retry after a lost response does not lease twice.
            idempotency_key=idempotency_key or uuid4().hex,
            pid=pid,
            device_uuids=device_uuids,
        )
        response = await self._caller.unary(lambda stub: stub.AllocateGPU, request, context)
        return _read_allocation(response.allocation)

    async def renew(
        self, allocation_id: str, *, ttl_s: float | None = None, context: CallContext = CallContext()
    ) -> Allocation:
        """Renews a lease for `ttl_s` seconds from now; None: for as long as before.

        Raises:
            TorchlessError: NOT_FOUND (`metadata["reason"]` is `unknown`, `expired` or `released`), GPU_UNAVAILABLE (the
                lease is lost) or INVALID_INPUT.
        """
        request = build(pb.RenewAllocationRequest, id=allocation_id, ttl_s=ttl_s)
        response = await self._caller.unary(lambda stub: stub.RenewAllocation, request, context)
        return _read_allocation(response.allocation)

    async def release(self, allocation_id: str, context: CallContext = CallContext()) -> Allocation:
        """Ends a lease and returns its last state.

        Raises:
            TorchlessError: NOT_FOUND, as for `renew`.
        """
        request = build(pb.ReleaseGPURequest, id=allocation_id)
        response = await self._caller.unary(lambda stub: stub.ReleaseGPU, request, context, repeatable=False)
        return _read_allocation(response.allocation)

    async def watch(
        self, *, interval_s: float | None = None, context: CallContext = CallContext()
    ) -> AsyncGenerator[StatusUpdate, None]:
        """The status at once, then at every change and every interval, until the caller or the service stops.

        There is no deadline unless `context` has one.

        Args:
            interval_s: Seconds between updates when nothing changes; None: the service's default.
            context: Tenant, request id, trace and deadline of the call.

        Raises:
            TorchlessError: OVERLOADED (too many watchers), INVALID_INPUT, or UNREACHABLE when the service shuts down.
        """
        request = pb.WatchStatusRequest(interval_s=interval_s)
        updates = self._caller.unary_stream(lambda stub: stub.WatchStatus, request, context)
        # Closing cancels the call at the service, which serves only so many watchers.
        async with aclosing(updates):
            async for update in updates:
                yield _read_update(update)
