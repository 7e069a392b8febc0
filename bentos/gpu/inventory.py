"""Which devices are there, over the readings so far: what came, what went, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bentos.gpu.driver import DeviceReading, Reading
from bentos.gpu.events import Event, EventKind

_NO_DEVICE = "the NVIDIA driver works and lists no GPU"
_NOT_LISTED = "the driver lists it no more"


@dataclass(frozen=True, slots=True)
class DriverPoll:
    """What one look at the driver found: a reading, or why there is none."""

    reading: Reading | None
    reason: str = ""
    """Why there is no reading, in words for a caller."""
    stalled: bool = False
    """The driver has not answered, which can pass: nothing is known, so nothing counts as lost."""


@dataclass(frozen=True, slots=True)
class LostDevice:
    """A GPU that was there; as the contract's."""

    uuid: str
    index: int
    name: str
    reason: str
    since: float


class Inventory:
    """The devices as last seen."""

    def __init__(self) -> None:
        self.devices: tuple[DeviceReading, ...] = ()
        """Those that are there, by index, a GPU before its MIG instances."""
        self.reading: Reading | None = None
        """The last look, if it found something."""
        self.reason = "the driver has not been asked yet"
        """Why no device is there; empty when one is."""
        self.stalled = False
        """Whether the driver does not answer just now, so that `devices` is empty for no fault of theirs."""
        self._known: dict[str, DeviceReading] = {}
        self._lost: dict[str, LostDevice] = {}
        self._had_driver: bool | None = None

    @property
    def lost(self) -> tuple[LostDevice, ...]:
        """GPUs that were there and are gone, without MIG instances: those come and go as an operator cuts them."""
        return tuple(sorted(self._lost.values(), key=lambda each: (each.index, each.uuid)))

    def why_lost(self, uuid: str) -> str:
        """Why a device is not there, in words."""
        return self._lost[uuid].reason if uuid in self._lost else _NOT_LISTED

    def observe(self, poll: DriverPoll, now: float) -> list[Event]:
        """Takes in a look at the driver; what changed, as events."""
        self.reading, self.stalled = poll.reading, poll.stalled
        self.devices = poll.reading.devices if poll.reading else ()
        self.reason = poll.reason if poll.reading is None else ("" if self.devices else _NO_DEVICE)
        events = self._driver_events(poll, now)
        if poll.stalled:
            return events
        here = {device.uuid: device for device in self.devices}
        gone = poll.reading.gone if poll.reading else {}
        events += [self._lose(device, gone, now) for uuid, device in self._known.items() if uuid not in here]
        events += [self._come(device, now) for uuid, device in here.items() if uuid not in self._known]
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
        message = f"the device {device.uuid} is gone: {reason}"
        return Event(EventKind.DEVICE_LOST, now, message, device_uuid=device.uuid)

    def _come(self, device: DeviceReading, now: float) -> Event:
        self._lost.pop(device.uuid, None)
        message = f"the device {device.uuid} is there: {device.name}"
        return Event(EventKind.DEVICE_ADDED, now, message, device_uuid=device.uuid)


def _health_event(device: DeviceReading, now: float) -> Event:
    if device.fault:
        message = f"the device {device.uuid} cannot be used now: {device.fault}"
        return Event(EventKind.DEVICE_UNHEALTHY, now, message, device_uuid=device.uuid)
    return Event(EventKind.DEVICE_HEALTHY, now, f"the device {device.uuid} can be used again", device_uuid=device.uuid)
