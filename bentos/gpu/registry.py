"""The registry of leases: the devices last seen, the leases in force, and every change, written to disk first.

Everything here runs on one thread, so that each of many concurrent callers sees the leases of those before it.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from bentos.gpu.driver import DeviceReading
from bentos.gpu.events import Event, EventKind
from bentos.gpu.inventory import DriverPoll, Inventory
from bentos.gpu.leases import DeviceAllocation, Lease, LeaseRequest, LeaseState, choose_devices
from bentos.gpu.settings import GPUSettings
from bentos.gpu.snapshot import Snapshot, take_snapshot
from bentos.gpu.store import LeaseStore
from bentos.gpu.thresholds import Thresholds
from torchless.contracts.errors import ErrorKind, ResourceType, TorchlessError, not_found

logger = logging.getLogger(__name__)

_REMEMBERED = 10_000
"""Most ended leases of which the end is known."""
_FORGET_EVERY_S = 60.0
_QUIET = frozenset({EventKind.ALLOCATED, EventKind.RENEWED, EventKind.RELEASED})
"""Events that are logged at DEBUG only."""


class LeaseRegistry:
    """The leases and their devices.

    Args:
        store: Storage of the leases; opened and closed here.
        settings: The bento's settings.
        publish: Called with every new snapshot and the events since the one before.
        clock: Seconds since the Unix epoch. A monotonic clock would not do, because leases survive the process; setting
            the machine's clock moves their ends.
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
        self._unwritten: dict[str, Lease] = {}
        """Changed leases that could not be written to disk yet."""
        self._read_at = 0.0
        self._forgot_at = 0.0

    def open(self) -> None:
        """Opens the store and reads its leases; raises like `LeaseStore.open`."""
        self._store.open()
        for lease in self._store.live():
            self._remember(lease)
        self._ended.update(self._store.ended(_REMEMBERED))
        logger.info("%d leases are in force", len(self._live))

    def close(self) -> None:
        """Closes the store."""
        self._store.close()

    def snapshot(self) -> Snapshot:
        """The current state."""
        self.sweep()
        return self._snapshot()

    def observe(self, poll: DriverPoll) -> None:
        """Records a poll of the driver; leases on lost devices become LOST."""
        now = self._clock()
        events = self._inventory.observe(poll, now)
        if poll.reading is not None:
            self._read_at = now
        if not poll.stalled:
            events += self._thresholds.observe(self._inventory.devices, now)
            events += self._lose_leases(now)
        events += self._expire(now)
        self._report(events)

    def sweep(self) -> None:
        """Ends the expired leases."""
        now = self._clock()
        if events := self._expire(now):
            self._report(events)
        if now - self._forgot_at > _FORGET_EVERY_S:
            self._forgot_at = now
            self._tidy(now)

    def allocate(self, request: LeaseRequest) -> Lease:
        """A new lease, or the lease that an equal request with the same key got before.

        Raises:
            TorchlessError: ALREADY_EXISTS, OVERLOADED, GPU_UNAVAILABLE, NOT_FOUND, INPUT_TOO_LARGE or INVALID_INPUT.
        """
        self.sweep()
        if (existing := self._find_by_key(request)) is not None:
            return existing
        if len(self._live) >= self._settings.max_allocations:
            first = min(lease.expires for lease in self._live.values())
            raise TorchlessError(
                ErrorKind.OVERLOADED,
                f"the service is at its limit of {len(self._live)} allocations",
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
        self._report([_lease_event(EventKind.ALLOCATED, lease, now, f"{request.memory_mb} MiB for {request.holder!r}")])
        return lease

    def renew(self, lease_id: str, ttl_s: float | None) -> Lease:
        """Extends a lease to `ttl_s` from now; None: its last time to live.

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
        self._report([_lease_event(EventKind.RENEWED, renewed, now, f"renewed for {length:g} s")])
        return renewed

    def release(self, lease_id: str) -> Lease:
        """Ends a lease and returns it.

        Raises:
            TorchlessError: NOT_FOUND.
        """
        lease = self._find(lease_id)
        now = self._clock()
        self._write([replace(lease, state=LeaseState.RELEASED)], now)
        self._report([_lease_event(EventKind.RELEASED, lease, now, f"released by {lease.holder!r}")])
        return lease

    def _find_by_key(self, request: LeaseRequest) -> Lease | None:
        if not request.idempotency_key:
            return None
        lease_id = self._keys.get((request.tenant, request.idempotency_key))
        if lease_id is None:
            return None
        lease = self._live[lease_id]
        if lease.fingerprint != request.fingerprint():
            raise TorchlessError(
                ErrorKind.ALREADY_EXISTS,
                "idempotency_key: a different request used this key for its allocation; use another key",
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
        messages = {
            LeaseState.EXPIRED: "the allocation has expired",
            LeaseState.RELEASED: "the allocation was released",
            None: "there is no allocation with this id",
        }
        raise not_found(ResourceType.LEASE, lease_id, messages[how], reason=how.value if how else "unknown")

    def _expire(self, now: float) -> list[Event]:
        over = [lease for lease in self._live.values() if lease.expires <= now]
        if not over:
            return []
        self._apply([replace(lease, state=LeaseState.EXPIRED) for lease in over], now)
        return [_lease_event(EventKind.EXPIRED, lease, now, f"expired, held by {lease.holder!r}") for lease in over]

    def _lose_leases(self, now: float) -> list[Event]:
        here = {device.uuid for device in self._inventory.devices}
        before = list(self._live.values())
        changed = [lease for old in before if (lease := self._without_gone(old, here)) is not old]
        if not changed:
            return []
        self._apply(changed, now)
        return [_lease_event(EventKind.ALLOCATION_LOST, lease, now, lease.lost_reason) for lease in changed]

    def _without_gone(self, lease: Lease, here: set[str]) -> Lease:
        gone = [allocated.uuid for allocated in lease.devices if not allocated.lost and allocated.uuid not in here]
        if not gone:
            return lease
        devices = tuple(replace(each, lost=True) if each.uuid in gone else each for each in lease.devices)
        reason = f"the device {gone[0]} is lost: {self._inventory.why_lost(gone[0])}"
        return replace(lease, devices=devices, state=LeaseState.LOST, lost_reason=reason)

    def _write(self, leases: list[Lease], now: float) -> None:
        """Applies changes for callers: writes to disk first, so that a failed write changes nothing."""
        self._store.write([*self._unwritten.values(), *leases], now)
        self._unwritten.clear()
        for lease in leases:
            self._remember(lease)

    def _apply(self, leases: list[Lease], now: float) -> None:
        """Applies changes that have happened, even if the disk fails; they are then written with the next change."""
        for lease in leases:
            self._remember(lease)
            self._unwritten[lease.id] = lease
        self._try_to_write(now)

    def _try_to_write(self, now: float) -> None:
        try:
            self._write([], now)
        except TorchlessError:
            logger.warning("%d lease changes are not on disk yet; will retry", len(self._unwritten))

    def _tidy(self, now: float) -> None:
        if self._unwritten:
            self._try_to_write(now)
        try:
            self._store.forget(now - self._settings.remember_ended_s)
        except TorchlessError:
            logger.warning("old leases could not be deleted; will retry")

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

    def _report(self, events: list[Event]) -> None:
        for event in events:
            logger.log(logging.DEBUG if event.kind in _QUIET else logging.INFO, "%s: %s", event.kind, event.message)
        self._publish(self._snapshot(), events)

    def _snapshot(self) -> Snapshot:
        return take_snapshot(
            self._inventory,
            self._live.values(),
            reached=self._thresholds.reached,
            read_at=self._read_at,
            reserve_mb=self._settings.reserve_mb,
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


def _lease_event(kind: EventKind, lease: Lease, now: float, detail: str) -> Event:
    device = lease.devices[0].uuid if len(lease.devices) == 1 else ""
    message = f"allocation {lease.id}: {detail}"
    return Event(kind, now, message, device_uuid=device, allocation_id=lease.id)
