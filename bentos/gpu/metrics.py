"""The GPU bento's Prometheus metrics. Labels are present devices and fixed names; none holds a value from a caller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# isort: off
# Before the library, whose ways in this process it settles.
import bentos.serving.metrics  # noqa: F401
from prometheus_client import REGISTRY, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
# isort: on

from bentos.gpu.events import Event, ThresholdName
from bentos.gpu.leases import LIVE
from bentos.gpu.snapshot import DeviceState, Snapshot

__all__ = ["Shown", "record"]

_MIB = 1024 * 1024
_MAX_DEVICES = 256

_EVENTS = Counter("torchless_gpu_events", "Events of devices and leases.", ["kind"])
_REACHED = Counter("torchless_gpu_thresholds_reached", "Thresholds that a device reached.", ["threshold"])
_FIGURES = {
    "healthy": "1 while the device can be read, else 0.",
    "memory_total_bytes": "Total memory of the device, in bytes.",
    "memory_used_bytes": "Memory in use by any process or by the driver, in bytes.",
    "memory_leased_bytes": "Memory that leases hold, in bytes.",
    "memory_allocatable_bytes": "Memory that one lease could get now, in bytes.",
    "utilization_ratio": "Share of time in which a kernel ran, 0 to 1.",
    "temperature_celsius": "Temperature of the chip, in degrees Celsius.",
    "power_watts": "Power drawn, in watts.",
    "ecc_uncorrected": "Uncorrected memory errors since the driver was loaded.",
}


def record(snapshot: Snapshot, events: Iterable[Event]) -> None:
    """Counts `events`, and exports `snapshot` from now on."""
    for event in events:
        _EVENTS.labels(event.kind.value).inc()
        if event.kind.value == "threshold_reached" and event.threshold is not None:
            _REACHED.labels(event.threshold.value).inc()
    _SHOWN.snapshot = snapshot


class Shown(Collector):
    """Exports the newest snapshot at every scrape, so that lost devices leave no samples behind."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One sample per device and figure; none for figures that a device does not report."""
        if self.snapshot is None:
            return
        families = _families()
        _add_totals(families, self.snapshot)
        _add_devices(families, self.snapshot)
        yield from families.values()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The metrics without samples, whatever was recorded."""
        yield from _families().values()


_DEVICE = ("device",)
_DESCRIBED: dict[str, tuple[str, tuple[str, ...]]] = {
    "available": ("1 when the driver responds and lists a device, else 0.", ()),
    "lost_devices": ("Devices that were lost.", ()),
    "allocations": ("Leases by state.", ("state",)),
    "device_info": ("1 for each present device.", ("device", "index", "name", "parent")),
    "threshold_reached": ("1 while a threshold is reached.", ("device", "threshold")),
    **{name: (what, _DEVICE) for name, what in _FIGURES.items()},
}
"""Description and labels of each metric of the snapshot, by its name without the prefix."""


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(f"torchless_gpu_{name}", what, labels=labels)
        for name, (what, labels) in _DESCRIBED.items()
    }


def _add_totals(families: dict[str, GaugeMetricFamily], snapshot: Snapshot) -> None:
    families["available"].add_metric([], float(snapshot.available))
    families["lost_devices"].add_metric([], float(len(snapshot.lost_devices)))
    for state in sorted(LIVE):
        families["allocations"].add_metric([state.value], sum(lease.state is state for lease in snapshot.leases))


def _add_devices(families: dict[str, GaugeMetricFamily], snapshot: Snapshot) -> None:
    for state in snapshot.devices[:_MAX_DEVICES]:
        device = state.reading
        families["device_info"].add_metric([device.uuid, str(device.index), device.name, device.parent_uuid], 1)
        for threshold in ThresholdName:
            is_reached = (device.uuid, threshold) in snapshot.reached
            families["threshold_reached"].add_metric([device.uuid, threshold.value], float(is_reached))
        for name, value in _figures(state).items():
            if value is not None:
                families[name].add_metric([device.uuid], float(value))


def _figures(state: DeviceState) -> dict[str, float | None]:
    device, memory = state.reading, state.reading.memory
    return {
        "healthy": not device.fault,
        "memory_total_bytes": None if memory is None else memory.total_mb * _MIB,
        "memory_used_bytes": None if memory is None else memory.used_mb * _MIB,
        "memory_leased_bytes": state.leased_mb * _MIB,
        "memory_allocatable_bytes": state.allocatable_mb * _MIB,
        "utilization_ratio": None if device.utilization_percent is None else device.utilization_percent / 100,
        "temperature_celsius": device.temperature_c,
        "power_watts": device.power_w,
        "ecc_uncorrected": device.ecc_uncorrected,
    }


_SHOWN = Shown()
REGISTRY.register(_SHOWN)
