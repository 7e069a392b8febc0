"""The GPU service, typed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

from torchless.clients.base import CapabilityClient, valid_text
from torchless.clients.call import CallContext
from torchless.clients.caller import Caller
from torchless.contracts.errors import invalid_input
from torchless.contracts.gpu.v1 import gpu_pb2 as pb
from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceStub

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceAsyncStub

_Stub: TypeAlias = "GPUServiceAsyncStub"
SERVICE_NAME = "torchless.gpu.v1.GPUService"
_THRESHOLDS: dict[int, str] = {
    pb.THRESHOLD_MEMORY_USED_SHARE: "memory_used_share",
    pb.THRESHOLD_TEMPERATURE_C: "temperature_c",
    pb.THRESHOLD_ECC_UNCORRECTED: "ecc_uncorrected",
}


class AllocationState(StrEnum):
    """Whether a lease is worth anything."""

    ACTIVE = "active"
    """In force."""
    LOST = "lost"
    """One of its devices is gone; it stays until it expires or is released."""


class EventKind(StrEnum):
    """What happened; see the contract's `EventKind`."""

    UNKNOWN = "unknown"
    """Something that this client is too old to know."""
    DRIVER_LOST = "driver_lost"
    DRIVER_BACK = "driver_back"
    DEVICE_ADDED = "device_added"
    DEVICE_LOST = "device_lost"
    DEVICE_UNHEALTHY = "device_unhealthy"
    DEVICE_HEALTHY = "device_healthy"
    ALLOCATED = "allocated"
    RENEWED = "renewed"
    RELEASED = "released"
    EXPIRED = "expired"
    ALLOCATION_LOST = "allocation_lost"
    THRESHOLD_REACHED = "threshold_reached"
    THRESHOLD_LEFT = "threshold_left"


@dataclass(frozen=True, slots=True)
class GPUProcess:
    """Something that runs on a device."""

    pid: int
    """Its process id, as the driver sees it."""
    memory_mb: int | None
    """Memory of the device that it holds, in MiB; None: the driver does not tell."""


@dataclass(frozen=True, slots=True)
class GPUDevice:
    """A GPU, or a MIG instance of one. What is None, the device or its driver does not tell."""

    uuid: str
    """The driver's name for it; `CUDA_VISIBLE_DEVICES` takes it."""
    index: int
    """The driver's number for it; for a MIG instance, that of its GPU."""
    name: str
    """Product name."""
    pci_bus_id: str | None
    """Place on the PCI bus; None for MIG instances."""
    memory_total_mb: int | None
    """All of its memory, in MiB."""
    memory_used_mb: int | None
    """Memory in use by whomever, in MiB."""
    memory_free_mb: int | None
    """Memory free, in MiB."""
    memory_leased_mb: int
    """Memory that leases hold, in MiB."""
    memory_allocatable_mb: int
    """The most that one allocation could get here now, in MiB."""
    allocatable: bool
    """Whether leases can be had here at all."""
    healthy: bool
    """Whether the driver can read it."""
    unhealthy_reason: str
    """Why not; empty when it can."""
    utilization_percent: int | None
    """Share of time in which a kernel ran, 0 to 100."""
    memory_utilization_percent: int | None
    """Share of time in which memory was read or written, 0 to 100."""
    temperature_c: int | None
    """Temperature of the chip, in degrees Celsius."""
    power_w: float | None
    """Power drawn, in watts."""
    power_limit_w: float | None
    """Power that it may draw, in watts."""
    ecc_corrected: int | None
    """Memory errors corrected since the driver was loaded."""
    ecc_uncorrected: int | None
    """Memory errors that could not be corrected since the driver was loaded."""
    mig_enabled: bool | None
    """Whether it is cut into MIG instances; None where it cannot be."""
    parent_uuid: str
    """For a MIG instance: uuid of its GPU; else empty."""
    mig_index: int | None
    """For a MIG instance: its number on its GPU."""
    processes: tuple[GPUProcess, ...]
    """Compute processes that run on it."""


@dataclass(frozen=True, slots=True)
class LostDevice:
    """A device that was there while the service ran and is gone."""

    uuid: str
    """Its uuid."""
    index: int
    """Its number while it was there."""
    name: str
    """Its product name."""
    reason: str
    """Why it counts as lost, in words."""
    since: float
    """When that was noticed, in seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """A device's part in a lease."""

    uuid: str
    """The device's uuid."""
    index: int
    """Its number when the lease was made."""
    name: str
    """Its product name."""
    memory_mb: int
    """Memory leased on it, in MiB."""
    lost: bool
    """Whether the device has gone since."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """A lease."""

    id: str
    """Its id."""
    devices: tuple[AllocatedDevice, ...]
    """As many as were asked for."""
    holder: str
    """Who holds it."""
    tenant: str
    """For whom; may be empty."""
    state: AllocationState
    """Whether it is in force."""
    lost_reason: str
    """Why it is lost; empty when it is not."""
    created: float
    """When it was made, in seconds since the Unix epoch, by the service's clock."""
    expires: float
    """When it ends unless it is renewed, likewise."""
    exclusive: bool
    """Whether nobody else is let on its devices."""
    pid: int | None
    """The holder's process, where it was given."""


@dataclass(frozen=True, slots=True)
class GPUStatus:
    """What is known of the machine's GPUs."""

    available: bool
    """Whether there is at least one device and a driver that answers."""
    unavailable_reason: str
    """Why not, in words; empty when available."""
    driver_version: str
    """Version of the driver; empty without one."""
    cuda_version: str
    """Newest CUDA version that the driver runs; empty without one."""
    nvml_version: str
    """Version of the driver's management library; empty without one."""
    devices: tuple[GPUDevice, ...]
    """The devices that are there, by index, a GPU before its MIG instances."""
    lost_devices: tuple[LostDevice, ...]
    """Devices that are gone."""
    allocations: tuple[Allocation, ...]
    """Leases in force and lost ones, the oldest first."""
    read_at: float
    """When the devices were last read, in seconds since the Unix epoch; 0: never."""
    reserve_mb: int
    """Memory of each device that is never leased, in MiB."""


@dataclass(frozen=True, slots=True)
class GPUEvent:
    """Something that happened."""

    kind: EventKind
    """What."""
    at: float
    """When, in seconds since the Unix epoch."""
    message: str
    """The same in words."""
    device_uuid: str
    """The device that it is about; empty: none in particular."""
    allocation_id: str
    """The lease that it is about; empty: none."""
    threshold: str
    """The threshold that it is about: `memory_used_share`, `temperature_c` or `ecc_uncorrected`; empty: none."""
    value: float | None
    """What was read, in the threshold's unit."""
    limit: float | None
    """The threshold's own value."""


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """What `watch` yields."""

    status: GPUStatus
    """What is known now."""
    events: tuple[GPUEvent, ...]
    """What happened since the last update, the oldest first."""
    events_dropped: int
    """Events left out, because this caller reads slowly."""


class GPUClient(CapabilityClient):
    """Calls one GPU service.

        async with GPUClient("localhost:50056") as client:
            lease = await client.allocate(8000, "trainer")

    Every method raises `TorchlessError` and nothing else; its kind says whose fault it was.

    Args:
        settings: How the service is called, or just its address.
        metrics: Where calls and endpoints are shown; None: on Prometheus' default registry.
    """

    capability = "gpu"
    service_name = SERVICE_NAME
    make_stub = GPUServiceStub
    _caller: Caller[_Stub]

    async def status(self, context: CallContext = CallContext()) -> GPUStatus:
        """The driver, the devices and the leases; says why there are no devices where there are none."""
        response = await self._caller.unary(lambda stub: stub.GetStatus, pb.GetStatusRequest(), context)
        return _status(response.status)

    async def devices(self, context: CallContext = CallContext()) -> list[GPUDevice]:
        """The devices that are there; empty without a GPU or its driver."""
        response = await self._caller.unary(lambda stub: stub.ListDevices, pb.ListDevicesRequest(), context)
        return [_device(each) for each in response.devices]

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
        """Leases memory on one or several devices, all of them or none.

        Args:
            memory_mb: Memory wanted on each device, in MiB, at least 1.
            holder: Who asks, 1 to 256 characters.
            device_count: Devices wanted; None: 1.
            exclusive: Only devices without any lease, and nobody else on them afterwards.
            tenant: For whom; empty: the context's tenant.
            ttl_s: How long the lease runs unless it is renewed, in seconds; None: the service's default.
            idempotency_key: While its lease is there, the same key with an equal request answers that lease again.
            pid: The holder's process id as the driver sees it; None in a container with process ids of its own.
            device_uuids: Only these devices; empty: any.
            context: For whom, and how long they wait.

        Raises:
            TorchlessError: INVALID_INPUT, INPUT_TOO_LARGE (no device could ever hold it), NOT_FOUND (a device of
                `device_uuids`), ALREADY_EXISTS (the key stands for another request), OVERLOADED (no room now) or
                GPU_UNAVAILABLE.
        """
        request = pb.AllocateGPURequest(
            memory_mb=_fitting(memory_mb, "memory_mb", bits=64),
            device_count=None if device_count is None else _fitting(device_count, "device_count", bits=32),
            exclusive=exclusive,
            holder=valid_text(holder, "holder"),
            tenant=valid_text(tenant, "tenant"),
            ttl_s=ttl_s,
            # With a key of its own, a call whose answer was lost can be made again.
            idempotency_key=valid_text(idempotency_key, "idempotency_key") or uuid4().hex,
            pid=None if pid is None else _fitting(pid, "pid", bits=64),
            device_uuids=[valid_text(uuid, f"device_uuids[{n}]") for n, uuid in enumerate(device_uuids)],
        )
        response = await self._caller.unary(lambda stub: stub.AllocateGPU, request, context)
        return _allocation(response.allocation)

    async def renew(
        self, allocation_id: str, *, ttl_s: float | None = None, context: CallContext = CallContext()
    ) -> Allocation:
        """Lets a lease run on for `ttl_s` seconds from now; None: as long as before.

        Raises:
            TorchlessError: NOT_FOUND (`metadata["reason"]` is `unknown`, `expired` or `released`), GPU_UNAVAILABLE (it
                is lost) or INVALID_INPUT.
        """
        request = pb.RenewAllocationRequest(id=valid_text(allocation_id, "id"), ttl_s=ttl_s)
        response = await self._caller.unary(lambda stub: stub.RenewAllocation, request, context)
        return _allocation(response.allocation)

    async def release(self, allocation_id: str, context: CallContext = CallContext()) -> Allocation:
        """Gives a lease back, and answers it as it was.

        Raises:
            TorchlessError: NOT_FOUND, as for `renew`.
        """
        request = pb.ReleaseGPURequest(id=valid_text(allocation_id, "id"))
        response = await self._caller.unary(lambda stub: stub.ReleaseGPU, request, context, repeatable=False)
        return _allocation(response.allocation)

    async def watch(
        self, *, interval_s: float | None = None, context: CallContext = CallContext()
    ) -> AsyncGenerator[StatusUpdate, None]:
        """The status at once, then at every change and every interval, until the caller stops or the service leaves.

        There is no deadline unless `context` has one.

        Args:
            interval_s: Seconds after which the status comes though nothing changed; None: the service's default.
            context: For whom.

        Raises:
            TorchlessError: OVERLOADED (too many watch), INVALID_INPUT, or UNREACHABLE when the service leaves.
        """
        request = pb.WatchStatusRequest(interval_s=interval_s)
        updates = self._caller.unary_stream(lambda stub: stub.WatchStatus, request, context)
        # Left early it is cancelled at the service, which has room for so many who watch.
        async with aclosing(updates):
            async for each in updates:
                yield StatusUpdate(_status(each.status), tuple(map(_event, each.events)), each.events_dropped)


def _fitting(number: int, field: str, *, bits: int) -> int:
    limit = 1 << (bits - 1)
    if not -limit <= number < limit:
        raise invalid_input(field, f"does not fit into {bits} bits")
    return number


def _status(message: pb.Status) -> GPUStatus:
    return GPUStatus(
        available=message.available,
        unavailable_reason=message.unavailable_reason,
        driver_version=message.driver_version,
        cuda_version=message.cuda_version,
        nvml_version=message.nvml_version,
        devices=tuple(map(_device, message.devices)),
        lost_devices=_lost(message.lost_devices),
        allocations=tuple(map(_allocation, message.allocations)),
        read_at=message.read_at,
        reserve_mb=message.reserve_mb,
    )


def _device(message: pb.Device) -> GPUDevice:
    return GPUDevice(
        uuid=message.uuid,
        index=message.index,
        name=message.name,
        pci_bus_id=message.pci_bus_id if message.HasField("pci_bus_id") else None,
        memory_total_mb=message.memory_total_mb if message.HasField("memory_total_mb") else None,
        memory_used_mb=message.memory_used_mb if message.HasField("memory_used_mb") else None,
        memory_free_mb=message.memory_free_mb if message.HasField("memory_free_mb") else None,
        memory_leased_mb=message.memory_leased_mb,
        memory_allocatable_mb=message.memory_allocatable_mb,
        allocatable=message.allocatable,
        healthy=message.healthy,
        unhealthy_reason=message.unhealthy_reason,
        utilization_percent=message.utilization_percent if message.HasField("utilization_percent") else None,
        memory_utilization_percent=(
            message.memory_utilization_percent if message.HasField("memory_utilization_percent") else None
        ),
        temperature_c=message.temperature_c if message.HasField("temperature_c") else None,
        power_w=message.power_w if message.HasField("power_w") else None,
        power_limit_w=message.power_limit_w if message.HasField("power_limit_w") else None,
        ecc_corrected=message.ecc_corrected if message.HasField("ecc_corrected") else None,
        ecc_uncorrected=message.ecc_uncorrected if message.HasField("ecc_uncorrected") else None,
        mig_enabled=message.mig_enabled if message.HasField("mig_enabled") else None,
        parent_uuid=message.parent_uuid,
        mig_index=message.mig_index if message.HasField("mig_index") else None,
        processes=tuple(
            GPUProcess(each.pid, each.memory_mb if each.HasField("memory_mb") else None) for each in message.processes
        ),
    )


def _lost(messages: Iterable[pb.LostDevice]) -> tuple[LostDevice, ...]:
    return tuple(LostDevice(each.uuid, each.index, each.name, each.reason, each.since) for each in messages)


def _allocation(message: pb.Allocation) -> Allocation:
    return Allocation(
        id=message.id,
        devices=tuple(AllocatedDevice(d.uuid, d.index, d.name, d.memory_mb, d.lost) for d in message.devices),
        holder=message.holder,
        tenant=message.tenant,
        state=AllocationState.LOST if message.state == pb.ALLOCATION_STATE_LOST else AllocationState.ACTIVE,
        lost_reason=message.lost_reason,
        created=message.created,
        expires=message.expires,
        exclusive=message.exclusive,
        pid=message.pid if message.HasField("pid") else None,
    )


def _event(message: pb.Event) -> GPUEvent:
    return GPUEvent(
        kind=_kind(message.kind),
        at=message.at,
        message=message.message,
        device_uuid=message.device_uuid,
        allocation_id=message.allocation_id,
        threshold=_THRESHOLDS.get(message.threshold, ""),
        value=message.value if message.HasField("value") else None,
        limit=message.limit if message.HasField("limit") else None,
    )


def _kind(number: int) -> EventKind:
    known = pb.EventKind.DESCRIPTOR.values_by_number.get(number)
    name = known.name.removeprefix("EVENT_KIND_") if known else ""
    return EventKind.__members__.get(name, EventKind.UNKNOWN)
