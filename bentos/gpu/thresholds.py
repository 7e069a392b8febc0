"""Thresholds of devices: one event when a threshold is reached, another when it is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bentos.gpu.driver import DeviceReading
from bentos.gpu.events import Event, EventKind, ThresholdName
from bentos.gpu.settings import ThresholdSettings

_LABELS = {
    ThresholdName.MEMORY_USED_SHARE: "share of memory in use",
    ThresholdName.TEMPERATURE_C: "temperature in degrees Celsius",
    ThresholdName.ECC_UNCORRECTED: "uncorrected memory errors",
}


@dataclass(frozen=True, slots=True)
class _Measure:
    """A value and its threshold."""

    name: ThresholdName
    value: float
    limit: float
    left_below: float


class Thresholds:
    """Tracks which thresholds are reached.

    Args:
        settings: The thresholds.
    """

    def __init__(self, settings: ThresholdSettings) -> None:
        self._settings = settings
        self._reached: set[tuple[str, ThresholdName]] = set()

    @property
    def reached(self) -> frozenset[tuple[str, ThresholdName]]:
        """The thresholds reached and not left, each with its device's uuid."""
        return frozenset(self._reached)

    def observe(self, devices: Iterable[DeviceReading], now: float) -> list[Event]:
        """Events since the last reading. A missing value changes nothing; a lost device leaves its thresholds."""
        devices = list(devices)
        self._reached &= {(device.uuid, name) for device in devices for name in ThresholdName}
        return [
            event
            for device in devices
            for measure in self._measures(device)
            if (event := self._event(device, measure, now)) is not None
        ]

    def _measures(self, device: DeviceReading) -> Iterator[_Measure]:
        own = self._settings
        memory = device.memory
        # A GPU in MIG mode is full by design; its instances are measured instead.
        if own.memory_used_share is not None and memory is not None and memory.total_mb and not device.mig_enabled:
            share = memory.used_mb / memory.total_mb
            left = own.memory_used_share - own.memory_margin
            yield _Measure(ThresholdName.MEMORY_USED_SHARE, share, own.memory_used_share, left)
        if own.temperature_c is not None and device.temperature_c is not None:
            left = own.temperature_c - own.temperature_margin_c
            yield _Measure(ThresholdName.TEMPERATURE_C, device.temperature_c, own.temperature_c, left)
        if own.ecc_uncorrected is not None and device.ecc_uncorrected is not None:
            limit = own.ecc_uncorrected
            yield _Measure(ThresholdName.ECC_UNCORRECTED, device.ecc_uncorrected, limit, limit)

    def _event(self, device: DeviceReading, measure: _Measure, now: float) -> Event | None:
        key = (device.uuid, measure.name)
        if key not in self._reached and measure.value >= measure.limit:
            self._reached.add(key)
            kind, verb = EventKind.THRESHOLD_REACHED, "has reached"
        elif key in self._reached and measure.value < measure.left_below:
            self._reached.discard(key)
            kind, verb = EventKind.THRESHOLD_LEFT, "is below"
        else:
            return None
        return Event(
            kind,
            now,
            f"{_LABELS[measure.name]} {verb} {measure.limit:g} on {device.uuid}: {measure.value:g}",
            device_uuid=device.uuid,
            threshold=measure.name,
            value=measure.value,
            limit=measure.limit,
        )
