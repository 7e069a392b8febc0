"""Devices, leases and events of the GPU service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AllocationState(StrEnum):
    """Whether a lease is in force. Its first member also stands for states that this client does not know."""

    ACTIVE = "active"
    """In force."""
    LOST = "lost"
    """One of its devices is gone. The lease stays until it expires or is released."""


class EventKind(StrEnum):
    """What happened; the contract's `EventKind` describes each."""

    UNKNOWN = "unknown"
    """An event that is newer than this client."""
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


class Threshold(StrEnum):
    """A threshold of the GPU service's settings."""

    NONE = ""
    """No threshold, or one that is newer than this client."""
    MEMORY_USED_SHARE = "memory_used_share"
    """Share of the memory in use, 0 to 1."""
    TEMPERATURE_C = "temperature_c"
    """Temperature, in degrees Celsius."""
    ECC_UNCORRECTED = "ecc_uncorrected"
    """Uncorrected memory errors since the driver was loaded."""


@dataclass(frozen=True, slots=True)
class GPUProcess:
    """A process that runs on a device."""

    pid: int
    """Its process id, as the driver sees it."""
    memory_mb: int | None
    """Memory of the device that it holds, in MiB; None: the driver does not say."""


@dataclass(frozen=True, slots=True)
class GPUDevice:
    """A GPU, or a MIG instance of one. A field is None where the device or its driver does not report it."""

    uuid: str
    """The driver's name for it; `CUDA_VISIBLE_DEVICES` takes it."""
    index: int
    """The driver's number for it; for a MIG instance, that of its GPU."""
    name: str
    """Product name."""
    pci_bus_id: str | None
    """Address on the PCI bus; None for MIG instances."""
    memory_total_mb: int | None
    """All of its memory, in MiB."""
    memory_used_mb: int | None
    """Memory in use by any process, in MiB."""
    memory_free_mb: int | None
    """Memory free, in MiB."""
    memory_leased_mb: int
    """Memory that leases hold, in MiB."""
    memory_allocatable_mb: int
    """The most that one allocation could lease here now, in MiB."""
    allocatable: bool
    """Whether the device can be leased at all."""
    healthy: bool
    """Whether the driver can read it."""
    unhealthy_reason: str
    """Why the driver cannot read it; empty when healthy."""
    utilization_percent: int | None
    """Share of time in which a kernel ran, 0 to 100."""
    memory_utilization_percent: int | None
    """Share of time in which memory was read or written, 0 to 100."""
    temperature_c: int | None
    """Temperature of the chip, in degrees Celsius."""
    power_w: float | None
    """Power drawn, in watts."""
    power_limit_w: float | None
    """The most power that it may draw, in watts."""
    ecc_corrected: int | None
    """Memory errors corrected since the driver was loaded."""
    ecc_uncorrected: int | None
    """Memory errors that could not be corrected since the driver was loaded."""
    mig_enabled: bool | None
    """Whether it is split into MIG instances; None where it cannot be."""
    parent_uuid: str
    """For a MIG instance: uuid of its GPU; else empty."""
    mig_index: int | None
    """For a MIG instance: its number on its GPU."""
    processes: tuple[GPUProcess, ...]
    """Compute processes that run on it."""


@dataclass(frozen=True, slots=True)
class LostDevice:
    """A device that has gone while the service ran."""

    uuid: str
    """Its uuid."""
    index: int
    """Its number while it was there."""
    name: str
    """Its product name."""
    reason: str
    """Why it counts as lost, in words."""
    since: float
    """When the service noticed, in seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """One device of a lease."""

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
    """The leased devices, as many as the request named."""
    holder: str
    """Its holder, as in the request."""
    tenant: str
    """The tenant that it is for; may be empty."""
    state: AllocationState
    """Whether it is in force."""
    lost_reason: str
    """Why it is lost; empty when it is not."""
    created: float
    """When it was made, in seconds since the Unix epoch, by the service's clock."""
    expires: float
    """When it ends unless it is renewed, by the same clock."""
    exclusive: bool
    """Whether no other lease may share its devices."""
    pid: int | None
    """The holder's process id; None: not given."""


@dataclass(frozen=True, slots=True)
class GPUStatus:
    """The GPUs of the machine and their leases."""

    available: bool
    """Whether there is at least one device and a driver that answers."""
    unavailable_reason: str
    """Why there is none, in words; empty when available."""
    driver_version: str
    """Version of the driver; empty without one."""
    cuda_version: str
    """Newest CUDA version that the driver runs; empty without one."""
    nvml_version: str
    """Version of the driver's management library; empty without one."""
    devices: tuple[GPUDevice, ...]
    """The devices present, by index, a GPU before its MIG instances."""
    lost_devices: tuple[LostDevice, ...]
    """Devices that have gone."""
    allocations: tuple[Allocation, ...]
    """Leases in force and lost ones, the oldest first."""
    read_at: float
    """When the devices were last read, in seconds since the Unix epoch; 0: never."""
    reserve_mb: int
    """Memory of each device that is never leased, in MiB."""


@dataclass(frozen=True, slots=True)
class GPUEvent:
    """A change of a device, the driver or a lease."""

    kind: EventKind
    """What happened."""
    at: float
    """When, in seconds since the Unix epoch."""
    message: str
    """The same in words."""
    device_uuid: str
    """The device that it is about; empty: none in particular."""
    allocation_id: str
    """The lease that it is about; empty: none."""
    threshold: Threshold
    """The threshold that it is about."""
    value: float | None
    """The value read, in the threshold's unit."""
    limit: float | None
    """The threshold's own value."""


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """One update of `GPUClient.watch`."""

    status: GPUStatus
    """The status now."""
    events: tuple[GPUEvent, ...]
    """Events since the last update, the oldest first."""
    events_dropped: int
    """Events left out because this caller reads slowly."""
