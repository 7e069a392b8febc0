"""The rules for leasing memory of devices. Pure.

The memory that a device can still promise, in MiB, is the smaller of:

    total - reserve - unleased - sum over holders of max(leased, used)
    free - reserve - sum over holders of max(0, leased - used)

`used` is what the driver reports for the holder's process, and `unleased` is all other memory in use. So a holder's
memory counts once: the larger of leased and used. A lease without a process counts in addition to the memory in use, so
less than the free memory may be offered, but never more. Leases of the same process count together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bentos.gpu.driver import DeviceReading, MemoryReading
from torchless.contracts.errors import (
    ErrorKind,
    ResourceType,
    TorchlessError,
    input_too_large,
    invalid_input,
    not_found,
)

_DEFAULT_RETRY_S = 5.0
"""Retry hint when no lease is in the way, in seconds: the memory is used by a process without a lease."""


class LeaseState(StrEnum):
    """State of a lease; the values are those in the store."""

    ACTIVE = "active"
    LOST = "lost"
    """One of its devices was lost; the lease stays until it expires or is released."""
    EXPIRED = "expired"
    RELEASED = "released"


LIVE = frozenset({LeaseState.ACTIVE, LeaseState.LOST})
"""States of leases in force."""


@dataclass(frozen=True, slots=True)
class DeviceAllocation:
    """The part of a lease on one device."""

    uuid: str
    index: int
    name: str
    memory_mb: int
    lost: bool = False
    """Whether the device was lost since."""


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A request for a lease; the units are those of the contract's AllocateGPURequest."""

    memory_mb: int
    holder: str
    ttl_s: float
    device_count: int = 1
    exclusive: bool = False
    tenant: str = ""
    idempotency_key: str = ""
    pid: int | None = None
    device_uuids: frozenset[str] = frozenset()

    def fingerprint(self) -> str:
        """Equal for equal requests of one tenant and key, also across processes."""
        devices = (self.device_count, self.exclusive, self.pid, sorted(self.device_uuids))
        return repr((self.memory_mb, self.holder, self.ttl_s, *devices))


@dataclass(frozen=True, slots=True)
class Lease:
    """Memory promised to a holder until a time. Times are seconds since the Unix epoch, to survive the process."""

    id: str
    devices: tuple[DeviceAllocation, ...]
    holder: str
    tenant: str
    created: float
    expires: float
    ttl_s: float
    exclusive: bool
    pid: int | None
    idempotency_key: str
    fingerprint: str
    state: LeaseState = LeaseState.ACTIVE
    lost_reason: str = ""

    def allocation_on(self, uuid: str) -> DeviceAllocation | None:
        """Its part on a device that is not lost, if it has one."""
        return next((allocated for allocated in self.devices if allocated.uuid == uuid and not allocated.lost), None)


def by_device(leases: Iterable[Lease]) -> dict[str, list[tuple[Lease, DeviceAllocation]]]:
    """The leases on each device, by its uuid."""
    found: dict[str, list[tuple[Lease, DeviceAllocation]]] = {}
    for lease in leases:
        for allocated in lease.devices:
            if not allocated.lost:
                found.setdefault(allocated.uuid, []).append((lease, allocated))
    return found


def free_memory_mb(device: DeviceReading, held: Sequence[tuple[Lease, DeviceAllocation]], reserve_mb: int) -> int:
    """The most that can still be leased on a device, in MiB; exclusive leases are not considered."""
    if device.memory is None or device.mig_enabled:
        return 0
    used_by: dict[int, int] = {}
    for process in device.processes:
        used_by[process.pid] = used_by.get(process.pid, 0) + (process.memory_mb or 0)
    leased_by: dict[int, int] = {}
    without_pid = 0
    for lease, allocated in held:
        if lease.pid is None:
            without_pid += allocated.memory_mb
        else:
            leased_by[lease.pid] = leased_by.get(lease.pid, 0) + allocated.memory_mb
    return _free_mb(device.memory, used_by, leased_by, without_pid, reserve_mb)


def _free_mb(
    memory: MemoryReading, used_by: Mapping[int, int], leased_by: Mapping[int, int], without_pid: int, reserve_mb: int
) -> int:
    used = {pid: used_by.get(pid, 0) for pid in leased_by}
    unleased = max(0, memory.used_mb - sum(used.values()))
    promised = without_pid + sum(max(leased, used[pid]) for pid, leased in leased_by.items())
    not_used_yet = without_pid + sum(max(0, leased - used[pid]) for pid, leased in leased_by.items())
    of_total = memory.total_mb - reserve_mb - unleased - promised
    of_free = memory.free_mb - reserve_mb - not_used_yet
    return max(0, min(of_total, of_free))


def capacity_of(device: DeviceReading, reserve_mb: int) -> int:
    """The most that could ever be leased on a device, in MiB."""
    if device.memory is None or device.mig_enabled:
        return 0
    return max(0, device.memory.total_mb - reserve_mb)


def choose_devices(
    request: LeaseRequest,
    devices: Sequence[DeviceReading],
    leases: Sequence[Lease],
    *,
    reserve_mb: int,
    now: float,
    lost_uuids: frozenset[str] = frozenset(),
) -> list[DeviceReading]:
    """Chooses the devices with the least memory left over; all that the request needs, or none.

    Args:
        request: The lease request, already validated.
        devices: The present devices.
        leases: The leases in force; none has expired.
        reserve_mb: Memory of each device that is never leased, in MiB.
        now: Seconds since the Unix epoch.
        lost_uuids: Devices that were lost.

    Raises:
        TorchlessError: GPU_UNAVAILABLE, NOT_FOUND, INPUT_TOO_LARGE, INVALID_INPUT or OVERLOADED; see AllocateGPU in the
            contract.
    """
    candidates = _candidates(request, devices, lost_uuids)
    fitting = _fitting(request, candidates, reserve_mb)
    held = by_device(leases)
    left_over: list[tuple[tuple[int, int, int], DeviceReading]] = []
    for device in fitting:
        here = held.get(device.uuid, [])
        taken = any(lease.exclusive for lease, _ in here) or (request.exclusive and bool(here))
        free_mb = free_memory_mb(device, here, reserve_mb)
        if not taken and free_mb >= request.memory_mb:
            left_over.append(((free_mb - request.memory_mb, device.index, device.mig_index or 0), device))
    if len(left_over) < request.device_count:
        raise _overloaded(request, [lease for device in fitting for lease, _ in held.get(device.uuid, [])], now)
    return [device for _, device in sorted(left_over, key=lambda each: each[0])[: request.device_count]]


def _candidates(
    request: LeaseRequest, devices: Sequence[DeviceReading], lost_uuids: frozenset[str]
) -> list[DeviceReading]:
    here = {device.uuid: device for device in devices}
    for uuid in sorted(request.device_uuids - here.keys()):
        if uuid in lost_uuids:
            raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, f"device_uuids: the device {uuid} is lost")
        raise not_found(ResourceType.DEVICE, uuid, f"device_uuids: there is no device {uuid}")
    for uuid in sorted(request.device_uuids):
        if here[uuid].mig_enabled:
            raise invalid_input("device_uuids", f"{uuid} is in MIG mode; name its MIG instances instead")
    named = [device for device in devices if not request.device_uuids or device.uuid in request.device_uuids]
    usable = [device for device in named if device.memory is not None and not device.mig_enabled]
    if not usable:
        raise TorchlessError(
            ErrorKind.GPU_UNAVAILABLE, "none of the devices can be leased now; GetStatus gives the reason for each"
        )
    return usable


def _fitting(request: LeaseRequest, candidates: Sequence[DeviceReading], reserve_mb: int) -> list[DeviceReading]:
    fitting = [device for device in candidates if capacity_of(device, reserve_mb) >= request.memory_mb]
    if not fitting:
        largest = max(capacity_of(device, reserve_mb) for device in candidates)
        raise input_too_large(
            "memory_mb",
            f"{request.memory_mb} MiB do not fit on any device; the maximum is {largest} MiB",
            largest_mb=str(largest),
        )
    if len(fitting) < request.device_count:
        raise input_too_large(
            "device_count",
            f"must be at most {len(fitting)}, the number of devices that can hold {request.memory_mb} MiB",
            devices=str(len(fitting)),
        )
    return fitting


def _overloaded(request: LeaseRequest, in_the_way: Sequence[Lease], now: float) -> TorchlessError:
    hint = max(0.1, min(lease.expires for lease in in_the_way) - now) if in_the_way else _DEFAULT_RETRY_S
    devices = "device" if request.device_count == 1 else "devices"
    exclusive = "exclusive " if request.exclusive else ""
    return TorchlessError(
        ErrorKind.OVERLOADED,
        f"{request.memory_mb} MiB are not free now on {request.device_count} {exclusive}{devices}; retry later",
        retry_after_s=hint,
    )
