"""The interface of a GPU driver, and its readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class DriverUnavailableError(Exception):
    """There is no driver, or it stopped working. The message is for callers and contains no path."""


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """A process on a device."""

    pid: int
    """Its id in the machine's own process namespace."""
    memory_mb: int | None
    """Memory that it holds, in MiB, rounded down; None: unknown."""


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """A device's memory, in MiB, rounded so that free memory is never overstated."""

    total_mb: int
    """Total memory."""
    used_mb: int
    """Memory in use by any process or by the driver."""
    free_mb: int
    """Free memory."""


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """A GPU or a MIG instance at one moment; None: the device does not report it. Units as in the contract."""

    uuid: str
    index: int
    name: str
    memory: MemoryReading | None
    """None: the device does not report it, or cannot be read now."""
    fault: str = ""
    """Why the device cannot be read now; empty when it can."""
    pci_bus_id: str | None = None
    utilization_percent: int | None = None
    memory_utilization_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    mig_enabled: bool | None = None
    parent_uuid: str = ""
    mig_index: int | None = None
    processes: tuple[ProcessReading, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that the driver reported at one moment."""

    driver_version: str
    cuda_version: str
    nvml_version: str
    devices: tuple[DeviceReading, ...]
    """By index, a GPU before its MIG instances."""
    gone: Mapping[int, str] = field(default_factory=dict)
    """Indices of devices that the driver counts but that no longer respond, each with the reason."""


class GPUDriver(Protocol):
    """A driver. All methods are called on one thread and may block it."""

    def open(self) -> None:
        """Starts a session with the driver and finds the present devices.

        Raises:
            DriverUnavailableError: There is no driver, or it does not work.
        """

    def read(self) -> Reading:
        """Reads all devices.

        Raises:
            DriverUnavailableError: The driver stopped working; the session is over.
        """

    def close(self) -> None:
        """Ends the session, if there is one."""
