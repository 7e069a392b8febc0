"""The rules by which memory of devices is leased. Pure: devices as last read and leases in, a decision out.

What may be promised on a device, in MiB:

    total - reserve - strangers - sum over holders of max(leased, used)

`used` is what the driver says that the holder's process holds there, `strangers` the memory in use that belongs to no
holder's process. So memory that a holder has taken counts once, as long as its lease names its process; a holder that
takes more than it leased is counted with what it took. A lease without a process is counted on top of what is in use:
less may be offered than there is, and never more. Beside that, never more than

    free - reserve - sum over holders of max(0, leased - used)

is promised: what is free now, less what is leased and not taken yet. Leases of the same process count together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bentos.gpu.driver import DeviceReading, MemoryReading
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large, invalid_input

_NO_HINT_S = 5.0
"""When to try again where no lease is in the way, in seconds: somebody without one has the memory."""


class LeaseState(StrEnum):
    """Where a lease is in its life; the values are what the store holds."""

    ACTIVE = "active"
    LOST = "lost"
    """A device of it is gone; kept until it expires or is released."""
    EXPIRED = "expired"
    RELEASED = "released"


LIVE = frozenset({LeaseState.ACTIVE, LeaseState.LOST})
"""States of leases that are there."""


@dataclass(frozen=True, slots=True)
class DeviceAllocation:
    """A device's part in a lease."""

    uuid: str
    index: int
    name: str
    memory_mb: int
    lost: bool = False
    """Whether the device has gone since."""


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a caller asks for; units as in the contract's AllocateGPURequest."""

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
        """The same for equal requests of one tenant and key, also in another process."""
        return repr(
            (
                self.memory_mb,
                self.holder,
                self.ttl_s,
                self.device_count,
                self.exclusive,
                self.pid,
                sorted(self.device_uuids),
            )
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """Memory promised to a holder until a moment. Times are seconds since the Unix epoch, so that they outlive us."""

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
        """What it still holds on a device."""
        return next((allocated for allocated in self.devices if allocated.uuid == uuid and not allocated.lost), None)


def by_device(leases: Iterable[Lease]) -> dict[str, list[tuple[Lease, DeviceAllocation]]]:
    """What is held on each device, by its uuid."""
    found: dict[str, list[tuple[Lease, DeviceAllocation]]] = {}
    for lease in leases:
        for allocated in lease.devices:
            if not allocated.lost:
                found.setdefault(allocated.uuid, []).append((lease, allocated))
    return found


def free_memory_mb(device: DeviceReading, held: Sequence[tuple[Lease, DeviceAllocation]], reserve_mb: int) -> int:
    """The most that may be promised on a device beside what is held there, in MiB, whoever is there exclusively."""
    if device.memory is None or device.mig_enabled:
        return 0
    used_by: dict[int, int] = {}
    for process in device.processes:
        used_by[process.pid] = used_by.get(process.pid, 0) + (process.memory_mb or 0)
    leased_by: dict[int, int] = {}
    nameless = 0
    for lease, allocated in held:
        if lease.pid is None:
            nameless += allocated.memory_mb
        else:
            leased_by[lease.pid] = leased_by.get(lease.pid, 0) + allocated.memory_mb
    return _free_mb(device.memory, used_by, leased_by, nameless, reserve_mb)


def _free_mb(
    memory: MemoryReading, used_by: Mapping[int, int], leased_by: Mapping[int, int], nameless: int, reserve_mb: int
) -> int:
    used = {pid: used_by.get(pid, 0) for pid in leased_by}
    strangers = max(0, memory.used_mb - sum(used.values()))
    promised = nameless + sum(max(leased, used[pid]) for pid, leased in leased_by.items())
    not_taken_yet = nameless + sum(max(0, leased - used[pid]) for pid, leased in leased_by.items())
    unpromised = memory.total_mb - reserve_mb - strangers - promised
    unused = memory.free_mb - reserve_mb - not_taken_yet
    return max(0, min(unpromised, unused))


def capacity_of(device: DeviceReading, reserve_mb: int) -> int:
    """The most that could ever be promised on a device, in MiB."""
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
    """The devices for `request`: those where least is left over, all of them or none.

    Args:
        request: The lease request, already validated.
        devices: Those that are there.
        leases: Those that are there; none has expired.
        reserve_mb: Memory of each device that is never leased, in MiB.
        now: Seconds since the Unix epoch.
        lost_uuids: Devices that were there.

    Raises:
        TorchlessError: GPU_UNAVAILABLE, NOT_FOUND, INPUT_TOO_LARGE, INVALID_INPUT or OVERLOADED; as the contract's
            AllocateGPU says.
    """
    candidates = _candidates(request, devices, lost_uuids)
    fitting = _fitting(request, candidates, reserve_mb)
    held = by_device(leases)
    rooms = []
    for device in fitting:
        here = held.get(device.uuid, [])
        taken = any(lease.exclusive for lease, _ in here) or (request.exclusive and bool(here))
        room = free_memory_mb(device, here, reserve_mb)
        if not taken and room >= request.memory_mb:
            rooms.append((room - request.memory_mb, device.index, device.mig_index or 0, device))
    if len(rooms) < request.device_count:
        raise _overloaded(request, [lease for device in fitting for lease, _ in held.get(device.uuid, [])], now)
    return [device for *_, device in sorted(rooms, key=lambda room: room[:3])[: request.device_count]]


def _candidates(
    request: LeaseRequest, devices: Sequence[DeviceReading], lost_uuids: frozenset[str]
) -> list[DeviceReading]:
    here = {device.uuid: device for device in devices}
    for uuid in sorted(request.device_uuids - here.keys()):
        if uuid in lost_uuids:
            raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, f"device_uuids: the device {uuid} is gone")
        raise TorchlessError(ErrorKind.NOT_FOUND, f"device_uuids: there is no device {uuid}")
    for uuid in sorted(request.device_uuids):
        if here[uuid].mig_enabled:
            raise invalid_input("device_uuids", f"{uuid} is cut into MIG instances; name those")
    asked = [device for device in devices if not request.device_uuids or device.uuid in request.device_uuids]
    usable = [device for device in asked if device.memory is not None and not device.mig_enabled]
    if not usable:
        raise TorchlessError(
            ErrorKind.GPU_UNAVAILABLE, "none of the devices can be leased now; GetStatus says why for each"
        )
    return usable


def _fitting(request: LeaseRequest, candidates: Sequence[DeviceReading], reserve_mb: int) -> list[DeviceReading]:
    fitting = [device for device in candidates if capacity_of(device, reserve_mb) >= request.memory_mb]
    if not fitting:
        largest = max(capacity_of(device, reserve_mb) for device in candidates)
        raise input_too_large(
            "memory_mb",
            f"{request.memory_mb} MiB are more than any device has to lease; at most {largest} MiB are possible",
            largest_mb=str(largest),
        )
    if len(fitting) < request.device_count:
        raise input_too_large(
            "device_count",
            f"{request.device_count} devices of {request.memory_mb} MiB are more than there are; {len(fitting)} could "
            "hold that much",
            devices=str(len(fitting)),
        )
    return fitting


def _overloaded(request: LeaseRequest, in_the_way: Sequence[Lease], now: float) -> TorchlessError:
    hint = max(0.1, min(lease.expires for lease in in_the_way) - now) if in_the_way else _NO_HINT_S
    many = "a device" if request.device_count == 1 else f"{request.device_count} devices"
    how = " to itself" if request.exclusive else ""
    return TorchlessError(
        ErrorKind.OVERLOADED,
        f"there is no room now for {request.memory_mb} MiB on {many}{how}; try again later",
        retry_after_s=hint,
    )
