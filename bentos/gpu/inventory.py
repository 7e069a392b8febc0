"""The devices over all readings so far: which appeared, which were lost, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bentos.gpu.driver import DeviceReading, Reading
from bentos.gpu.events import Event, EventKind

_NO_DEVICE = "the NVIDIA driver works but lists no GPU"
_NOT_LISTED = "the driver no longer lists it"


@dataclass(frozen=True, slots=True)
class DriverPoll:
    """The result of one poll of the driver: a reading, or why there is none."""

    reading: Reading | None
    reason: str = ""
    """Why there is no reading, for callers."""
    stalled: bool = False
    """Whether the driver did not respond. This may be temporary, so no device counts as lost."""


@dataclass(frozen=True, slots=True)
class LostDevice:
    """A GPU that is no longer present; the fields are those of the contract."""

    uuid: str
    index: int
    name: str
    reason: str
    since: float


class Inventory:
    """The devices last seen."""

    def __init__(self) -> None:
        self.devices: tuple[DeviceReading, ...] = ()
        """The present devices, by index, a GPU before its MIG instances."""
        self.reading: Reading | None = None
        """The reading of the last poll, if it had one."""
        self.reason = "the driver has not been read yet"
        """Why no device is present; empty when one is."""
        self.stalled = False
        """Whether the driver does not respond, so that `devices` is empty although none is lost."""
        self._known: dict[str, DeviceReading] = {}
        self._lost: dict[str, LostDevice] = {}
        self._had_driver: bool | None = None

    @property
    def lost(self) -> tuple[LostDevice, ...]:
        """GPUs that were lost, without MIG instances, which operators create and remove."""
        return tuple(sorted(self._lost.values(), key=lambda each: (each.index, each.uuid)))

    def why_lost(self, uuid: str) -> str:
        """Why a device is lost."""
        return self._lost[uuid].reason if uuid in self._lost else _NOT_LISTED

    def observe(self, poll: DriverPoll, now: float) -> list[Event]:
        """Records a poll of the driver; returns the changes as events."""
        self.reading, self.stalled = poll.reading, poll.stalled
        self.devices = poll.reading.devices if poll.reading else ()
        self.reason = poll.reason if poll.reading is None else ("" if self.devices else _NO_DEVICE)
        events = self._driver_events(poll, now)
        if poll.stalled:
            return events
        here = {device.uuid: device for device in self.devices}
        gone = poll.reading.gone if poll.reading else {}
        events += [self._lose(device, gone, now) for uuid, device in self._known.items() if uuid not in here]
        events += [self._add(device, now) for uuid, device in here.items() if uuid not in self._known]
        events += [
            _health_event(device, now)
            for uuid, device in here.items()
            if uuid in self._known and bool(device.fault) != bool(self._known[uuid].fault)
        ]
        self._known = here
        return events

    def _driver_events(self, poll: DriverPoll, now: float) -> list[Event]:
        had, self._had_driver = self._had_driver, poll.reading is not None
        if had is True and poll.reading is None:
            return [Event(EventKind.DRIVER_LOST, now, poll.reason)]
        if had is False and poll.reading is not None:
            return [Event(EventKind.DRIVER_BACK, now, "the NVIDIA driver works")]
        return []

    def _lose(self, device: DeviceReading, gone: Mapping[int, str], now: float) -> Event:
        reason = gone.get(device.index) or self.reason or _NOT_LISTED
        if not device.parent_uuid:
            self._lost[device.uuid] = LostDevice(device.uuid, device.index, device.name, reason, now)
        message = f"the device {device.uuid} is lost: {reason}"
        return Event(EventKind.DEVICE_LOST, now, message, device_uuid=device.uuid)

    def _add(self, device: DeviceReading, now: float) -> Event:
        self._lost.pop(device.uuid, None)
        message = f"the device {device.uuid} was found: {device.name}"
        return Event(EventKind.DEVICE_ADDED, now, message, device_uuid=device.uuid)


def _health_event(device: DeviceReading, now: float) -> Event:
    if device.fault:
        message = f"the device {device.uuid} is unhealthy: {device.fault}"
        return Event(EventKind.DEVICE_UNHEALTHY, now, message, device_uuid=device.uuid)
    return Event(EventKind.DEVICE_HEALTHY, now, f"the device {device.uuid} is healthy again", device_uuid=device.uuid)
