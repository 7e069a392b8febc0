"""What is needed of a GPU driver, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class DriverUnavailableError(Exception):
    """There is no driver, or it went; the message is for callers and names no path."""


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """A process on a device."""

    pid: int
    """Its id in the machine's own numbering."""
    memory_mb: int | None
    """Memory that it holds, in MiB, rounded down; None: not told."""


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """A device's memory, in MiB, rounded so that never more is free than is."""

    total_mb: int
    """All of it."""
    used_mb: int
    """In use by whomever, the driver's own included."""
    free_mb: int
    """Free."""


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """A GPU or a MIG instance at one moment; what is None, the device does not tell. Units as in the contract."""

    uuid: str
    index: int
    name: str
    memory: MemoryReading | None
    """None: it does not tell, or cannot be read now."""
    fault: str = ""
    """Why it cannot be read now, in words; empty when it can."""
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
    """All that the driver told at one moment."""

    driver_version: str
    cuda_version: str
    nvml_version: str
    devices: tuple[DeviceReading, ...]
    """By index, a GPU before its MIG instances."""
    gone: Mapping[int, str] = field(default_factory=dict)
    """Numbers of devices that the driver counts and that do not answer any more, with why, in words."""


class GPUDriver(Protocol):
    """A driver. All methods are called on one thread, and may block it."""

    def open(self) -> None:
        """Starts a session with the driver; what is plugged in now is found.

        Raises:
            DriverUnavailableError: There is none, or it does not work.
        """

    def read(self) -> Reading:
        """What there is now.

        Raises:
            DriverUnavailableError: The driver went; the session is over.
        """

    def close(self) -> None:
        """Ends the session, if there is one."""
