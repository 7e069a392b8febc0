"""The state of devices and leases at one moment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bentos.gpu.driver import DeviceReading
from bentos.gpu.events import ThresholdName
from bentos.gpu.inventory import Inventory, LostDevice
from bentos.gpu.leases import DeviceAllocation, Lease, by_device, free_memory_mb


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device and its leased memory."""

    reading: DeviceReading
    leased_mb: int
    """Memory that leases hold, in MiB."""
    allocatable_mb: int
    """The most that one lease could get now, in MiB; 0 if none can."""
    allocatable: bool
    """Whether the device can be leased at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Everything known at one moment. Equal only to itself, so that it can be the key of a cache."""

    available: bool
    reason: str
    """Why no device is available; empty when one is."""
    driver_version: str
    cuda_version: str
    nvml_version: str
    devices: tuple[DeviceState, ...]
    lost_devices: tuple[LostDevice, ...]
    leases: tuple[Lease, ...]
    """Oldest first."""
    reached: frozenset[tuple[str, ThresholdName]]
    """Thresholds that are reached, each with its device's uuid."""
    read_at: float
    """When the devices were last read, in seconds since the Unix epoch; 0: never."""
    reserve_mb: int


def take_snapshot(
    inventory: Inventory,
    leases: Iterable[Lease],
    *,
    reached: frozenset[tuple[str, ThresholdName]],
    read_at: float,
    reserve_mb: int,
) -> Snapshot:
    """The state of the devices in `inventory` with `leases` on them."""
    leases = tuple(leases)
    held = by_device(leases)
    reading = inventory.reading
    return Snapshot(
        available=bool(inventory.devices),
        reason=inventory.reason,
        driver_version=reading.driver_version if reading else "",
        cuda_version=reading.cuda_version if reading else "",
        nvml_version=reading.nvml_version if reading else "",
        devices=tuple(_state(device, held.get(device.uuid, []), reserve_mb) for device in inventory.devices),
        lost_devices=inventory.lost,
        leases=leases,
        reached=reached,
        read_at=read_at,
        reserve_mb=reserve_mb,
    )


def _state(device: DeviceReading, held: list[tuple[Lease, DeviceAllocation]], reserve_mb: int) -> DeviceState:
    usable = device.memory is not None and not device.mig_enabled
    allocatable = usable and not any(lease.exclusive for lease, _ in held)
    return DeviceState(
        device,
        leased_mb=sum(allocated.memory_mb for _, allocated in held),
        allocatable_mb=free_memory_mb(device, held, reserve_mb) if allocatable else 0,
        allocatable=allocatable,
    )
