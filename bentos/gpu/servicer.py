"""The gRPC methods: translate the request, call the manager, translate the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from bentos.gpu import messages
from bentos.gpu.driver import GPUDriver
from bentos.gpu.leases import LeaseRequest
from bentos.gpu.manager import GPUManager
from bentos.gpu.settings import GPUSettings
from bentos.serving.calls import tenant
from torchless.contracts.gpu.v1 import gpu_pb2 as pb
from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


class GPUServicer(GPUServiceServicer):
    """Implements `torchless.gpu.v1.GPUService`.

    Args:
        settings: The bento's settings.
        driver: Creates the driver, which is opened later, on the monitor's thread.
    """

    def __init__(self, settings: GPUSettings, driver: Callable[[], GPUDriver]) -> None:
        self._settings = settings
        self._driver = driver
        self._manager: GPUManager | None = None

    async def start(self, report: Callable[[str], None] = lambda message: None) -> None:
        """Reads the store and the devices. The service is also ready without a device or driver."""
        manager = GPUManager(self._settings, self._driver())
        await manager.start(report)
        self._manager = manager

    async def stop(self) -> None:
        """Ends the threads."""
        if self._manager is not None:
            await self._manager.stop()

    @property
    def _ready(self) -> GPUManager:
        if self._manager is None:
            raise RuntimeError("a call arrived before start() returned")
        return self._manager

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        """The devices and leases."""
        return pb.GetStatusResponse(status=messages.status(await self._ready.snapshot()))

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Context) -> pb.ListDevicesResponse:  # noqa: N802
        """The present devices."""
        snapshot = await self._ready.snapshot()
        return pb.ListDevicesResponse(devices=[messages.device(each) for each in snapshot.devices])

    async def AllocateGPU(self, request: pb.AllocateGPURequest, context: Context) -> pb.AllocateGPUResponse:  # noqa: N802
        """Makes a lease."""
        lease = await self._ready.allocate(_lease_request(request, context, self._settings))
        return pb.AllocateGPUResponse(allocation=messages.allocation(lease))

    async def RenewAllocation(  # noqa: N802
        self, request: pb.RenewAllocationRequest, context: Context
    ) -> pb.RenewAllocationResponse:
        """Extends a lease."""
        ttl_s = request.ttl_s if request.HasField("ttl_s") else None
        return pb.RenewAllocationResponse(allocation=messages.allocation(await self._ready.renew(request.id, ttl_s)))

    async def ReleaseGPU(self, request: pb.ReleaseGPURequest, context: Context) -> pb.ReleaseGPUResponse:  # noqa: N802
        """Ends a lease."""
        return pb.ReleaseGPUResponse(allocation=messages.allocation(await self._ready.release(request.id)))

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        """Streams the status for as long as the caller listens."""
        interval_s = request.interval_s if request.HasField("interval_s") else None
        async with aclosing(self._ready.watch(interval_s)) as updates:
            async for update in updates:
                yield pb.WatchStatusResponse(
                    status=messages.status(update.snapshot),
                    events=[messages.event(each) for each in update.events],
                    events_dropped=update.dropped,
                )


def _lease_request(request: pb.AllocateGPURequest, context: Context, settings: GPUSettings) -> LeaseRequest:
    return LeaseRequest(
        memory_mb=request.memory_mb,
        holder=request.holder,
        ttl_s=request.ttl_s if request.HasField("ttl_s") else settings.default_ttl_s,
        device_count=request.device_count if request.HasField("device_count") else 1,
        exclusive=request.exclusive,
        tenant=request.tenant or tenant(context),
        idempotency_key=request.idempotency_key,
        pid=request.pid if request.HasField("pid") else None,
        device_uuids=frozenset(request.device_uuids),
    )
