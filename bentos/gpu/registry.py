"""The book of leases: devices as last seen, leases in force, and every change to either, on disk first.

All of it runs on one thread, so that of a hundred callers at once each sees what those before it were given.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from bentos.gpu.driver import DeviceReading
from bentos.gpu.events import Event, EventKind, ThresholdName
from bentos.gpu.inventory import DriverPoll, Inventory, LostDevice
from bentos.gpu.leases import (
    DeviceAllocation,
    Lease,
    LeaseRequest,
    LeaseState,
    by_device,
    choose_devices,
    free_memory_mb,
)
from bentos.gpu.settings import GPUSettings
from bentos.gpu.store import LeaseStore
from bentos.gpu.thresholds import Thresholds
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)

_REMEMBERED = 10_000
"""Leases that ended of which is known how, at most."""
_FORGET_EVERY_S = 60.0
_QUIET = frozenset({EventKind.ALLOCATED, EventKind.RENEWED, EventKind.RELEASED})
"""What is no news to an operator."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device and what leases leave of it."""

    reading: DeviceReading
    leased_mb: int
    """Memory that leases hold, in MiB."""
    allocatable_mb: int
    """The most that one lease could get now, in MiB; 0 where none can."""
    allocatable: bool
    """Whether leases can be had here at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All that is known at one moment. Equal only to itself, so that what is made of it can be kept by it."""

    available: bool
    reason: str
    """Why no device is available; empty when one is."""
    driver_version: str
    cuda_version: str
    nvml_version: str
    devices: tuple[DeviceState, ...]
    lost_devices: tuple[LostDevice, ...]
    leases: tuple[Lease, ...]
    """The oldest first."""
    reached: frozenset[tuple[str, ThresholdName]]
    """Thresholds that stand reached, each with its device's uuid."""
    read_at: float
    """When the devices were last read, in seconds since the Unix epoch; 0: never."""
    reserve_mb: int


class LeaseRegistry:
    """Leases and the devices that they are on.

    Args:
        store: Where leases are kept; opened and closed here.
        settings: The bento's settings.
        publish: Told of every snapshot, with what happened since the one before.
        clock: Seconds since the Unix epoch. Leases follow this clock and not one that starts with the process, because
            they outlive it; setting the machine's clock moves their ends.
    """

    def __init__(
        self,
        store: LeaseStore,
        settings: GPUSettings,
        publish: Callable[[Snapshot, Iterable[Event]], None] = lambda snapshot, events: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._settings = settings
        self._publish = publish
        self._clock = clock
        self._inventory = Inventory()
        self._thresholds = Thresholds(settings.thresholds)
        self._live: dict[str, Lease] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._ended: OrderedDict[str, LeaseState] = OrderedDict()
        self._owed: dict[str, Lease] = {}
        """What has happened to leases and the disk has refused so far."""
        self._read_at = 0.0
        self._forgot_at = 0.0

    def open(self) -> None:
        """Reads what the store has. Raises what `LeaseStore.open` raises."""
        self._store.open()
        for lease in self._store.live():
            self._remember(lease)
        self._ended.update(self._store.ended(_REMEMBERED))
        logger.info("%d leases are in force", len(self._live))

    def close(self) -> None:
        """Lets go of the store."""
        self._store.close()

    def snapshot(self) -> Snapshot:
        """All that is known now."""
        self.sweep()
        return self._snapshot()

    def observe(self, poll: DriverPoll) -> None:
        """Takes in a look at the driver; leases on devices that are gone are lost from now on."""
        now = self._clock()
        events = self._inventory.observe(poll, now)
        if poll.reading is not None:
            self._read_at = now
        if not poll.stalled:
            events += self._thresholds.observe(self._inventory.devices, now)
            events += self._lose_leases(now)
        events += self._expire(now)
        self._tell(events)

    def sweep(self) -> None:
        """Ends the leases that have run out."""
        now = self._clock()
        if events := self._expire(now):
            self._tell(events)
        if now - self._forgot_at > _FORGET_EVERY_S:
            self._forgot_at = now
            self._tidy(now)

    def allocate(self, request: LeaseRequest) -> Lease:
        """A new lease, or the one that the same request made before.

        Raises:
            TorchlessError: ALREADY_EXISTS, OVERLOADED, GPU_UNAVAILABLE, NOT_FOUND, INPUT_TOO_LARGE or INVALID_INPUT.
        """
        self.sweep()
        if (before := self._made_before(request)) is not None:
            return before
        if len(self._live) >= self._settings.max_allocations:
            first = min(lease.expires for lease in self._live.values())
            raise TorchlessError(
                ErrorKind.OVERLOADED,
                f"there are {len(self._live)} allocations, as many as the service keeps",
                retry_after_s=max(0.1, first - self._clock()),
            )
        self._check_available()
        now = self._clock()
        devices = choose_devices(
            request,
            self._inventory.devices,
            tuple(self._live.values()),
            reserve_mb=self._settings.reserve_mb,
            now=now,
            lost_uuids=frozenset(each.uuid for each in self._inventory.lost),
        )
        lease = _lease(request, devices, now)
        self._write([lease], now)
        self._tell([_lease_event(EventKind.ALLOCATED, lease, now, f"{request.memory_mb} MiB for {request.holder!r}")])
        return lease

    def renew(self, lease_id: str, ttl_s: float | None) -> Lease:
        """The lease, running on for `ttl_s` from now; None: as long as it last did.

        Raises:
            TorchlessError: NOT_FOUND, or GPU_UNAVAILABLE when it is lost.
        """
        lease = self._find(lease_id)
        if lease.state is LeaseState.LOST:
            raise TorchlessError(
                ErrorKind.GPU_UNAVAILABLE, f"the allocation is lost: {lease.lost_reason}", metadata={"reason": "lost"}
            )
        now = self._clock()
        length = lease.ttl_s if ttl_s is None else ttl_s
        renewed = replace(lease, expires=now + length, ttl_s=length)
        self._write([renewed], now)
        self._tell([_lease_event(EventKind.RENEWED, renewed, now, f"for {length:g} s")])
        return renewed

    def release(self, lease_id: str) -> Lease:
        """Ends a lease; answers it as it was.

        Raises:
            TorchlessError: NOT_FOUND.
        """
        lease = self._find(lease_id)
        now = self._clock()
        self._write([replace(lease, state=LeaseState.RELEASED)], now)
        self._tell([_lease_event(EventKind.RELEASED, lease, now, f"by {lease.holder!r}")])
        return lease

    def _made_before(self, request: LeaseRequest) -> Lease | None:
        if not request.idempotency_key:
            return None
        lease_id = self._keys.get((request.tenant, request.idempotency_key))
        if lease_id is None:
            return None
        lease = self._live[lease_id]
        if lease.fingerprint != request.fingerprint():
            raise TorchlessError(
                ErrorKind.ALREADY_EXISTS,
                "idempotency_key: an allocation was made with this key and a different request; use another key",
            )
        return lease

    def _check_available(self) -> None:
        if not self._inventory.devices:
            raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, f"no GPU is available: {self._inventory.reason}")

    def _find(self, lease_id: str) -> Lease:
        self.sweep()
        lease = self._live.get(lease_id)
        if lease is not None:
            return lease
        how = self._ended.get(lease_id)
        words = {LeaseState.EXPIRED: "has expired", LeaseState.RELEASED: "was released"}.get(how) if how else None
        raise TorchlessError(
            ErrorKind.NOT_FOUND,
            f"the allocation {words}" if words else "there is no such allocation",
            metadata={"reason": how.value if how else "unknown"},
        )

    def _expire(self, now: float) -> list[Event]:
        over = [lease for lease in self._live.values() if lease.expires <= now]
        if not over:
            return []
        self._note([replace(lease, state=LeaseState.EXPIRED) for lease in over], now)
        return [_lease_event(EventKind.EXPIRED, lease, now, f"of {lease.holder!r}") for lease in over]

    def _lose_leases(self, now: float) -> list[Event]:
        here = {device.uuid for device in self._inventory.devices}
        before = list(self._live.values())
        changed = [lease for old in before if (lease := self._without_gone(old, here)) is not old]
        if not changed:
            return []
        self._note(changed, now)
        return [_lease_event(EventKind.ALLOCATION_LOST, lease, now, lease.lost_reason) for lease in changed]

    def _without_gone(self, lease: Lease, here: set[str]) -> Lease:
        gone = [allocated.uuid for allocated in lease.devices if not allocated.lost and allocated.uuid not in here]
        if not gone:
            return lease
        devices = tuple(replace(each, lost=True) if each.uuid in gone else each for each in lease.devices)
        reason = f"the device {gone[0]} is gone: {self._inventory.why_lost(gone[0])}"
        return replace(lease, devices=devices, state=LeaseState.LOST, lost_reason=reason)

    def _write(self, leases: list[Lease], now: float) -> None:
        """What callers ask for: on disk first, so that nothing is believed here that the disk refused."""
        self._store.write([*self._owed.values(), *leases], now)
        self._owed.clear()
        for lease in leases:
            self._remember(lease)

    def _note(self, leases: list[Lease], now: float) -> None:
        """What has happened, whether the disk takes it or not; it is told again with the next change."""
        for lease in leases:
            self._remember(lease)
            self._owed[lease.id] = lease
        self._try_to_write(now)

    def _try_to_write(self, now: float) -> None:
        try:
            self._write([], now)
        except TorchlessError:
            logger.warning("%d changes of leases are not on disk yet; trying again", len(self._owed))

    def _tidy(self, now: float) -> None:
        if self._owed:
            self._try_to_write(now)
        try:
            self._store.forget(now - self._settings.remember_ended_s)
        except TorchlessError:
            logger.warning("leases that ended long ago could not be dropped; trying again")

    def _remember(self, lease: Lease) -> None:
        key = (lease.tenant, lease.idempotency_key)
        if lease.state in (LeaseState.ACTIVE, LeaseState.LOST):
            self._live[lease.id] = lease
            if lease.idempotency_key:
                self._keys[key] = lease.id
            return
        self._live.pop(lease.id, None)
        self._keys.pop(key, None)
        self._ended[lease.id] = lease.state
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            logger.log(logging.DEBUG if event.kind in _QUIET else logging.INFO, "%s: %s", event.kind, event.message)
        self._publish(self._snapshot(), events)

    def _snapshot(self) -> Snapshot:
        own = self._inventory
        held = by_device(self._live.values())
        states = tuple(self._state(device, held.get(device.uuid, [])) for device in own.devices)
        reading = own.reading
        return Snapshot(
            available=bool(own.devices),
            reason=own.reason,
            driver_version=reading.driver_version if reading else "",
            cuda_version=reading.cuda_version if reading else "",
            nvml_version=reading.nvml_version if reading else "",
            devices=states,
            lost_devices=own.lost,
            leases=tuple(self._live.values()),
            reached=self._thresholds.reached,
            read_at=self._read_at,
            reserve_mb=self._settings.reserve_mb,
        )

    def _state(self, device: DeviceReading, held: list[tuple[Lease, DeviceAllocation]]) -> DeviceState:
        usable = device.memory is not None and not device.mig_enabled
        allocatable = usable and not any(lease.exclusive for lease, _ in held)
        return DeviceState(
            device,
            leased_mb=sum(allocated.memory_mb for _, allocated in held),
            allocatable_mb=free_memory_mb(device, held, self._settings.reserve_mb) if allocatable else 0,
            allocatable=allocatable,
        )


def _lease(request: LeaseRequest, devices: Iterable[DeviceReading], now: float) -> Lease:
    return Lease(
        id=uuid.uuid4().hex,
        devices=tuple(DeviceAllocation(each.uuid, each.index, each.name, request.memory_mb) for each in devices),
        holder=request.holder,
        tenant=request.tenant,
        created=now,
        expires=now + request.ttl_s,
        ttl_s=request.ttl_s,
        exclusive=request.exclusive,
        pid=request.pid,
        idempotency_key=request.idempotency_key,
        fingerprint=request.fingerprint(),
    )


def _lease_event(kind: EventKind, lease: Lease, now: float, words: str) -> Event:
    device = lease.devices[0].uuid if len(lease.devices) == 1 else ""
    message = f"allocation {lease.id}: {words}"
    return Event(kind, now, message, device_uuid=device, allocation_id=lease.id)
