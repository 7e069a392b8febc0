"""A GPU service without GPUs: a list of fake devices, and leases in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count

from torchless.clients.gpu import SERVICE_NAME, GPUDevice
from torchless.clients.testing.service import Context, InProcessService
from torchless.contracts.errors import ErrorKind, ResourceType, TorchlessError, input_too_large, not_found
from torchless.contracts.gpu.v1 import gpu_pb2 as pb
from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceServicer, add_GPUServiceServicer_to_server

_TTL_S = 60.0
_INTERVAL_S = 10.0


def device(uuid: str, index: int = 0, *, total_mb: int = 24 * 1024) -> GPUDevice:
    """A healthy, idle GPU with `total_mb` MiB of memory."""
    return GPUDevice(
        uuid=uuid,
        index=index,
        name="Test GPU",
        pci_bus_id=f"00000000:{index + 1:02X}:00.0",
        memory_total_mb=total_mb,
        memory_used_mb=0,
        memory_free_mb=total_mb,
        memory_leased_mb=0,
        memory_allocatable_mb=total_mb,
        allocatable=True,
        healthy=True,
        unhealthy_reason="",
        utilization_percent=0,
        memory_utilization_percent=0,
        temperature_c=30,
        power_w=50.0,
        power_limit_w=300.0,
        ecc_corrected=0,
        ecc_uncorrected=0,
        mig_enabled=False,
        parent_uuid="",
        mig_index=None,
        processes=(),
    )


class GPUService(InProcessService, GPUServiceServicer):
    """Leases memory of fake devices, first fit, and reports devices, leases and events.

        async with GPUService([device("GPU-a", total_mb=8000)]) as service, GPUClient(service.address) as client:
            lease = await client.allocate(6000, "trainer")

    Without devices the status is unavailable, and allocating raises GPU_UNAVAILABLE.

    Args:
        devices: The devices, each with its own uuid.
        port: Port of 127.0.0.1; 0: a free one.
    """

    service_name = SERVICE_NAME
    add_to_server = staticmethod(add_GPUServiceServicer_to_server)

    def __init__(self, devices: Sequence[GPUDevice] = (device("GPU-a"), device("GPU-b", 1)), *, port: int = 0) -> None:
        self._given = tuple(devices)
        super().__init__(port=port)

    def reset(self) -> None:
        """Restores the behaviour and devices of a new service, and forgets all requests and leases."""
        super().reset()
        self.devices = self._given
        self._leases: dict[str, pb.Allocation] = {}
        self._ttls: dict[str, float] = {}
        self._keys: dict[tuple[str, str], tuple[pb.AllocateGPURequest, str]] = {}
        self._events: list[pb.Event] = []
        self._ids = count(1)
        self._changed = asyncio.Event()

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        """The status now."""
        return await self._unary(request, context, lambda _: pb.GetStatusResponse(status=self._status()))

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Context) -> pb.ListDevicesResponse:  # noqa: N802
        """The devices now."""
        return await self._unary(
            request, context, lambda _: pb.ListDevicesResponse(devices=map(self._device, self.devices))
        )

    async def AllocateGPU(self, request: pb.AllocateGPURequest, context: Context) -> pb.AllocateGPUResponse:  # noqa: N802
        """Makes a lease."""
        if not request.tenant:
            request.tenant = str(dict(context.invocation_metadata() or ()).get("x-tenant-id", ""))
        return await self._unary(request, context, lambda _: pb.AllocateGPUResponse(allocation=self._allocate(request)))

    async def RenewAllocation(  # noqa: N802
        self, request: pb.RenewAllocationRequest, context: Context
    ) -> pb.RenewAllocationResponse:
        """Renews a lease."""
        return await self._unary(
            request, context, lambda _: pb.RenewAllocationResponse(allocation=self._renew(request))
        )

    async def ReleaseGPU(self, request: pb.ReleaseGPURequest, context: Context) -> pb.ReleaseGPUResponse:  # noqa: N802
        """Ends a lease."""
        return await self._unary(
            request, context, lambda _: pb.ReleaseGPUResponse(allocation=self._release(request.id))
        )

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        """The status at once, then at every change of a lease and every interval."""
        async with self._call(context):
            await self._receive(request, context)
            seen = len(self._events)
            while True:
                changed, events = self._changed, self._events[seen:]
                seen += len(events)
                yield pb.WatchStatusResponse(status=self._status(), events=events)
                with suppress(TimeoutError):
                    async with asyncio.timeout(request.interval_s or _INTERVAL_S):
                        await changed.wait()

    def _status(self) -> pb.Status:
        self._expire()
        return pb.Status(
            available=bool(self.devices),
            unavailable_reason="" if self.devices else "there is no GPU",
            driver_version="1.0",
            cuda_version="13.0",
            nvml_version="13.1.0",
            devices=map(self._device, self.devices),
            allocations=self._leases.values(),
            read_at=time.time(),
        )

    def _device(self, given: GPUDevice) -> pb.Device:
        leased = [
            part.memory_mb for lease in self._leases.values() for part in lease.devices if part.uuid == given.uuid
        ]
        free = 0 if self._is_exclusive(given.uuid) else max(0, given.memory_allocatable_mb - sum(leased))
        return pb.Device(**asdict(given) | {"memory_leased_mb": sum(leased), "memory_allocatable_mb": free})

    def _allocate(self, request: pb.AllocateGPURequest) -> pb.Allocation:
        self._expire()
        if not self.devices:
            raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, "there is no GPU")
        key = (request.tenant, request.idempotency_key)
        if (known := self._keys.get(key)) and known[1] in self._leases:
            if known[0] != request:
                raise TorchlessError(ErrorKind.ALREADY_EXISTS, "the idempotency key belongs to a different request")
            return self._leases[known[1]]
        now, ttl_s = time.time(), request.ttl_s or _TTL_S
        lease = pb.Allocation(
            id=f"lease-{next(self._ids)}",
            devices=[
                pb.AllocatedDevice(uuid=each.uuid, index=each.index, name=each.name, memory_mb=request.memory_mb)
                for each in self._choose(request)
            ],
            holder=request.holder,
            tenant=request.tenant,
            state=pb.ALLOCATION_STATE_ACTIVE,
            created=now,
            expires=now + ttl_s,
            exclusive=request.exclusive,
            pid=request.pid if request.HasField("pid") else None,
        )
        self._leases[lease.id], self._ttls[lease.id] = lease, ttl_s
        if request.idempotency_key:
            self._keys[key] = request, lease.id
        self._record(pb.EVENT_KIND_ALLOCATED, lease)
        return lease

    def _choose(self, request: pb.AllocateGPURequest) -> list[pb.Device]:
        """The first devices that have the memory, as many as the request names."""
        wanted = request.device_count or 1
        known = {each.uuid for each in self.devices}
        for uuid in request.device_uuids:
            if uuid not in known:
                raise not_found(ResourceType.DEVICE, uuid, f"there is no device {uuid!r}")
        allowed = [each for each in self.devices if not request.device_uuids or each.uuid in request.device_uuids]
        large = [self._device(each) for each in allowed if (each.memory_total_mb or 0) >= request.memory_mb]
        if len(large) < wanted:
            raise input_too_large("memory_mb", "is more than the devices have")
        free = [
            each
            for each in large
            if each.memory_allocatable_mb >= request.memory_mb and not (request.exclusive and each.memory_leased_mb)
        ]
        if len(free) < wanted:
            raise TorchlessError(ErrorKind.OVERLOADED, "not enough memory is free", retry_after_s=1)
        return free[:wanted]

    def _renew(self, request: pb.RenewAllocationRequest) -> pb.Allocation:
        lease = self._lease(request.id)
        self._ttls[lease.id] = request.ttl_s if request.HasField("ttl_s") else self._ttls[lease.id]
        lease.expires = time.time() + self._ttls[lease.id]
        self._record(pb.EVENT_KIND_RENEWED, lease)
        return lease

    def _release(self, lease_id: str) -> pb.Allocation:
        lease = self._leases.pop(self._lease(lease_id).id)
        self._record(pb.EVENT_KIND_RELEASED, lease)
        return lease

    def _lease(self, lease_id: str) -> pb.Allocation:
        self._expire()
        if lease_id in self._leases:
            return self._leases[lease_id]
        kinds = [each.kind for each in self._events if each.allocation_id == lease_id]
        ended = {pb.EVENT_KIND_EXPIRED: "expired", pb.EVENT_KIND_RELEASED: "released"}
        reason = ended.get(kinds[-1], "unknown") if kinds else "unknown"
        raise not_found(ResourceType.LEASE, lease_id, f"there is no lease {lease_id!r}", reason=reason)

    def _expire(self) -> None:
        for lease in [each for each in self._leases.values() if each.expires <= time.time()]:
            del self._leases[lease.id]
            self._record(pb.EVENT_KIND_EXPIRED, lease)

    def _is_exclusive(self, uuid: str) -> bool:
        return any(lease.exclusive and uuid in _uuids(lease.devices) for lease in self._leases.values())

    def _record(self, kind: pb.EventKind.ValueType, lease: pb.Allocation) -> None:
        message = f"{lease.id}: {pb.EventKind.Name(kind).removeprefix('EVENT_KIND_').lower()}"
        self._events.append(pb.Event(kind=kind, at=time.time(), message=message, allocation_id=lease.id))
        self._changed.set()
        self._changed = asyncio.Event()


def _uuids(devices: Iterable[pb.AllocatedDevice]) -> set[str]:
    return {each.uuid for each in devices}
