"""A fake GPU driver."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from bentos.gpu.driver import DeviceReading, DriverUnavailableError, MemoryReading, ProcessReading, Reading

GIB = 1024


def device(
    uuid: str, *, total_mb: int = 10 * GIB, used_mb: int = 0, processes: dict[int, int] | None = None, index: int = 0
) -> DeviceReading:
    """A device; `processes` are process ids with their memory in MiB, which `used_mb` includes."""
    found = tuple(ProcessReading(pid, memory) for pid, memory in (processes or {}).items())
    memory = MemoryReading(total_mb, used_mb, total_mb - used_mb)
    return DeviceReading(uuid, index, "Fake GPU", memory, processes=found)


@dataclass
class FakeGPUDriver:
    """Finds devices when it is opened, as NVML does; reads the devices that are still present."""

    devices: list[DeviceReading] = field(default_factory=list)
    missing: str = ""
    """Why there is no driver; empty when there is."""
    refusals: int = 0
    """How many of the next attempts to open it fail."""
    broken: bool = False
    """Whether reading raises an unexpected error."""
    hold: threading.Event | None = None
    """Reading blocks until this is set."""
    opened: int = 0
    closed: int = 0
    threads: set[int] = field(default_factory=set)
    """Ids of the threads that called it."""
    _found: dict[str, int] = field(default_factory=dict)

    def open(self) -> None:
        self.threads.add(threading.get_ident())
        if self.missing or self.refusals:
            self.refusals -= bool(self.refusals)
            raise DriverUnavailableError(self.missing or "refused")
        self.opened += 1
        self._found = {each.uuid: index for index, each in enumerate(self.devices)}

    def read(self) -> Reading:
        self.threads.add(threading.get_ident())
        hold = self.hold
        if hold is not None:
            hold.wait()
        if self.missing:
            raise DriverUnavailableError(self.missing)
        if self.broken:
            raise RuntimeError("a defect")
        here = {each.uuid: each for each in self.devices}
        devices = tuple(replace(here[uuid], index=n) for uuid, n in self._found.items() if uuid in here)
        gone = {index: "it fell off the bus" for uuid, index in self._found.items() if uuid not in here}
        return Reading("1.2.3", "12.8", "12.1.2.3", devices, gone)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed += 1
