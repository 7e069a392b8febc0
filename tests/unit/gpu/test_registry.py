"""The lease registry with a real store: expiry, restart, idempotency, lost devices and limits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bentos.gpu.driver import DeviceReading, Reading
from bentos.gpu.events import Event, EventKind
from bentos.gpu.inventory import DriverPoll
from bentos.gpu.leases import Lease, LeaseRequest, LeaseState
from bentos.gpu.registry import LeaseRegistry
from bentos.gpu.settings import GPUSettings
from bentos.gpu.snapshot import Snapshot
from bentos.gpu.store import LeaseStore, StoreHeldError
from tests.fake_gpu_driver import device
from torchless.contracts.errors import ErrorKind, TorchlessError


def poll(*devices: DeviceReading, **gone: str) -> DriverPoll:
    return DriverPoll(Reading("1", "12.8", "12", devices, {int(n.removeprefix("n")): why for n, why in gone.items()}))


def request(memory_mb: int = 400, **more: Any) -> LeaseRequest:
    return LeaseRequest(**{"memory_mb": memory_mb, "holder": "h", "ttl_s": 60.0, **more})


@dataclass
class Desk:
    """A registry, with a clock that a test sets and what it published."""

    path: Path
    settings: GPUSettings = field(default_factory=lambda: GPUSettings(reserve_mb=100))
    now: float = 1_000_000.0
    events: list[Event] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = self._opened()

    def _opened(self) -> LeaseRegistry:
        def publish(snapshot: Snapshot, events: Any) -> None:
            self.snapshots.append(snapshot)
            self.events.extend(events)

        registry = LeaseRegistry(LeaseStore(self.path), self.settings, publish, lambda: self.now)
        registry.open()
        return registry

    def restart(self) -> None:
        self.registry.close()
        self.registry = self._opened()

    def kinds(self) -> list[EventKind]:
        kinds = [event.kind for event in self.events]
        self.events.clear()
        return kinds


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Two devices of 1,000 MiB, 100 of them reserved."""
    desk = Desk(tmp_path / "leases.sqlite3")
    desk.registry.observe(poll(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    desk.events.clear()
    yield desk
    desk.registry.close()


def refusal(work: Callable[..., object], *arguments: Any) -> TorchlessError:
    with pytest.raises(TorchlessError) as caught:
        work(*arguments)
    return caught.value


def test_lease_states_its_devices_memory_and_expiry(desk: Desk) -> None:
    lease = desk.registry.allocate(request(pid=7, tenant="t"))
    assert (lease.created, lease.expires, lease.pid, lease.tenant) == (desk.now, desk.now + 60, 7, "t")
    snapshot = desk.registry.snapshot()
    assert snapshot.leases == (lease,)
    assert [(d.leased_mb, d.allocatable_mb) for d in snapshot.devices] == [(400, 500), (0, 900)]
    assert desk.kinds() == [EventKind.ALLOCATED]


def test_exclusive_lease_leaves_no_allocatable_memory(desk: Desk) -> None:
    desk.registry.allocate(request(exclusive=True))
    first, second = desk.registry.snapshot().devices
    assert (first.allocatable, first.allocatable_mb, second.allocatable_mb) == (False, 0, 900)


def test_lease_ends_at_its_expiry_without_a_sweep(desk: Desk) -> None:
    lease = desk.registry.allocate(request(800))
    desk.now += 59.999
    assert desk.registry.snapshot().leases == (lease,)
    desk.now += 0.002
    assert desk.registry.snapshot().leases == ()
    assert desk.kinds() == [EventKind.ALLOCATED, EventKind.EXPIRED]
    error = refusal(desk.registry.renew, lease.id, None)
    assert (error.kind, error.metadata["reason"]) == (ErrorKind.NOT_FOUND, "expired")
    assert "expired" in error.message


def test_renewal_counts_from_now_and_keeps_the_ttl(desk: Desk) -> None:
    lease = desk.registry.allocate(request())
    desk.now += 30
    assert desk.registry.renew(lease.id, 10.0).expires == desk.now + 10
    desk.now += 5
    assert desk.registry.renew(lease.id, None).expires == desk.now + 10


def test_lease_can_be_released_once(desk: Desk) -> None:
    lease = desk.registry.allocate(request())
    assert desk.registry.release(lease.id) == lease
    again = refusal(desk.registry.release, lease.id)
    assert (again.kind, again.metadata["reason"]) == (ErrorKind.NOT_FOUND, "released")
    unknown = refusal(desk.registry.release, "nothing")
    assert (unknown.kind, unknown.metadata["reason"]) == (ErrorKind.NOT_FOUND, "unknown")


def test_leases_and_their_ends_survive_a_restart(desk: Desk) -> None:
    kept = desk.registry.allocate(request(pid=3, tenant="t", idempotency_key="k", exclusive=True))
    renewed = desk.registry.renew(desk.registry.allocate(request()).id, 500.0)
    released = desk.registry.release(desk.registry.allocate(request(100)).id)
    short = desk.registry.allocate(request(100, ttl_s=5.0))
    desk.now += 10
    desk.restart()
    desk.registry.observe(poll(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    assert desk.registry.snapshot().leases == (kept, renewed)
    assert refusal(desk.registry.renew, released.id, None).metadata["reason"] == "released"
    assert refusal(desk.registry.renew, short.id, None).metadata["reason"] == "expired"
    assert desk.registry.allocate(request(pid=3, tenant="t", idempotency_key="k", exclusive=True)) == kept


def test_ended_leases_are_forgotten_after_a_while(desk: Desk) -> None:
    lease = desk.registry.release(desk.registry.allocate(request()).id)
    desk.now += desk.settings.remember_ended_s + 61
    desk.registry.sweep()
    desk.restart()
    assert refusal(desk.registry.release, lease.id).metadata["reason"] == "unknown"


def test_repeated_key_returns_the_same_lease_while_it_lives(desk: Desk) -> None:
    asked = request(800, idempotency_key="k", tenant="t")
    lease = desk.registry.allocate(asked)
    assert [desk.registry.allocate(asked) for _ in range(100)] == [lease] * 100
    assert len(desk.registry.snapshot().leases) == 1
    error = refusal(desk.registry.allocate, replace(asked, memory_mb=801))
    assert error.kind is ErrorKind.ALREADY_EXISTS
    other = desk.registry.allocate(replace(asked, tenant="other"))
    assert other.id != lease.id
    desk.registry.release(lease.id)
    assert desk.registry.allocate(asked).id not in {lease.id, other.id}


def test_key_is_free_after_its_lease_has_expired(desk: Desk) -> None:
    first = desk.registry.allocate(request(idempotency_key="k"))
    desk.now += 61
    assert desk.registry.allocate(request(500, idempotency_key="k")).id != first.id


def test_repeated_key_is_answered_without_a_device(desk: Desk) -> None:
    lease = desk.registry.allocate(request(idempotency_key="k"))
    desk.registry.observe(DriverPoll(None, "the driver went"))
    again = desk.registry.allocate(request(idempotency_key="k"))
    assert (again.id, again.state) == (lease.id, LeaseState.LOST)


def test_leases_on_a_lost_device_are_lost(desk: Desk) -> None:
    here = desk.registry.allocate(request(800))
    there = desk.registry.allocate(request(700))
    assert (here.devices[0].uuid, there.devices[0].uuid) == ("a", "b")
    desk.kinds()
    desk.registry.observe(poll(device("b", total_mb=1000, index=1), n0="it fell off the bus"))
    assert desk.kinds() == [EventKind.DEVICE_LOST, EventKind.ALLOCATION_LOST]
    lost, kept = desk.registry.snapshot().leases
    assert (lost.id, lost.state, kept) == (here.id, LeaseState.LOST, there)
    assert "fell off the bus" in lost.lost_reason
    assert [(each.uuid, each.reason) for each in desk.registry.snapshot().lost_devices] == [
        ("a", "it fell off the bus")
    ]
    assert refusal(desk.registry.renew, here.id, None).kind is ErrorKind.GPU_UNAVAILABLE
    assert desk.registry.allocate(request(100)).devices[0].uuid == "b"


def test_lost_lease_stays_lost_after_a_restart_and_when_the_device_returns(desk: Desk) -> None:
    lease = desk.registry.allocate(request(800))
    desk.registry.observe(poll(device("b", total_mb=1000, index=1), n0="it fell off the bus"))
    desk.restart()
    desk.registry.observe(poll(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    (lost,) = desk.registry.snapshot().leases
    assert (lost.id, lost.state) == (lease.id, LeaseState.LOST)
    # Its memory went with the device, so it is there for others.
    assert desk.registry.allocate(request(900, device_uuids=frozenset({"a"}))).devices[0].uuid == "a"
    assert desk.registry.release(lease.id).state is LeaseState.LOST


def test_lost_lease_keeps_its_other_devices(desk: Desk) -> None:
    lease = desk.registry.allocate(request(800, device_count=2))
    desk.registry.observe(poll(device("b", total_mb=1000, index=1), n0="it fell off the bus"))
    assert refusal(desk.registry.allocate, request(200)).kind is ErrorKind.OVERLOADED
    desk.registry.release(lease.id)
    assert desk.registry.allocate(request(200)).devices[0].uuid == "b"


def test_allocation_without_any_device_is_gpu_unavailable_with_a_reason(desk: Desk) -> None:
    desk.registry.allocate(request())
    desk.kinds()
    desk.registry.observe(DriverPoll(None, "the NVIDIA driver is not loaded"))
    kinds = desk.kinds()
    assert kinds == [EventKind.DRIVER_LOST, *[EventKind.DEVICE_LOST] * 2, EventKind.ALLOCATION_LOST]
    error = refusal(desk.registry.allocate, request())
    assert error.kind is ErrorKind.GPU_UNAVAILABLE
    assert "not loaded" in error.message
    snapshot = desk.registry.snapshot()
    assert (snapshot.available, snapshot.reason, snapshot.devices) == (False, "the NVIDIA driver is not loaded", ())
    desk.registry.observe(poll(device("a", total_mb=1000)))
    assert desk.kinds() == [EventKind.DRIVER_BACK, EventKind.DEVICE_ADDED]
    assert [each.uuid for each in desk.registry.snapshot().lost_devices] == ["b"]


def test_driver_without_devices_is_reported(desk: Desk) -> None:
    desk.registry.observe(poll())
    assert "lists no GPU" in desk.registry.snapshot().reason


def test_unresponsive_driver_loses_no_lease(desk: Desk) -> None:
    lease = desk.registry.allocate(request())
    desk.registry.observe(DriverPoll(None, "the driver does not answer", stalled=True))
    assert refusal(desk.registry.allocate, request()).kind is ErrorKind.GPU_UNAVAILABLE
    assert desk.registry.renew(lease.id, 100.0).state is LeaseState.ACTIVE
    desk.registry.observe(poll(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    assert [each.state for each in desk.registry.snapshot().leases] == [LeaseState.ACTIVE]
    assert desk.registry.snapshot().lost_devices == ()


def test_removed_mig_instances_are_not_listed_as_lost(desk: Desk) -> None:
    gpu = replace(device("a"), mig_enabled=True)
    one = replace(device("mig-1", total_mb=900), parent_uuid="a", mig_index=0)
    desk.registry.observe(poll(gpu, one))
    lease = desk.registry.allocate(request())
    assert lease.devices[0].uuid == "mig-1"
    desk.registry.observe(poll(gpu, replace(one, uuid="mig-2")))
    snapshot = desk.registry.snapshot()
    assert [each.uuid for each in snapshot.lost_devices] == ["b"]
    assert [each.state for each in snapshot.leases] == [LeaseState.LOST]


def test_allocations_above_the_limit_are_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "few.sqlite3", GPUSettings(max_allocations=2))
    desk.registry.observe(poll(device("a")))
    desk.registry.allocate(request(1, ttl_s=20.0))
    desk.registry.allocate(request(1))
    error = refusal(desk.registry.allocate, request(1))
    assert (error.kind, error.retry_after_s) == (ErrorKind.OVERLOADED, 20.0)
    desk.registry.close()


def test_lease_is_not_made_if_the_disk_write_fails(desk: Desk) -> None:
    connection = desk.registry._store._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count=1")  # as a full disk: nothing more fits into the file
    made: list[Lease] = []

    def fill() -> None:
        for n in range(200):
            made.append(desk.registry.allocate(request(1, holder="h" * 250, idempotency_key=str(n))))  # noqa: PERF401

    error = refusal(fill)
    assert error.kind is ErrorKind.INTERNAL
    assert "full" not in error.message
    assert desk.registry.snapshot().leases == tuple(made)
    connection.execute("PRAGMA max_page_count=100000")
    kept = desk.registry.allocate(request(1))
    desk.restart()
    assert desk.registry.snapshot().leases == (*made, kept)


def test_changes_during_disk_errors_take_effect_and_are_written_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = desk.registry.allocate(request(800))
    over = desk.registry.allocate(request(700, ttl_s=10.0, idempotency_key="k"))
    assert (lost.devices[0].uuid, over.devices[0].uuid) == ("a", "b")

    def refuse(leases: object, now: float) -> None:
        raise TorchlessError(ErrorKind.INTERNAL, "the disk is full")

    monkeypatch.setattr(desk.registry._store, "write", refuse)
    desk.now += 11
    desk.registry.observe(poll(device("b", total_mb=1000, index=1), n0="it fell off the bus"))
    assert [(each.id, each.state) for each in desk.registry.snapshot().leases] == [(lost.id, LeaseState.LOST)]
    assert refusal(desk.registry.allocate, request(1)).kind is ErrorKind.INTERNAL
    monkeypatch.undo()
    again = desk.registry.allocate(request(600, idempotency_key="k"))
    desk.restart()
    desk.registry.observe(poll(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    assert [(each.id, each.state) for each in desk.registry.snapshot().leases] == [
        (lost.id, LeaseState.LOST),
        (again.id, LeaseState.ACTIVE),
    ]
    assert refusal(desk.registry.renew, over.id, None).metadata["reason"] == "expired"


def test_every_change_is_synced_to_the_disk(desk: Desk) -> None:
    """A kill does not show it; only a loss of power would (https://www.sqlite.org/pragma.html#pragma_synchronous)."""
    connection = desk.registry._store._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_store_is_open_in_one_process_only(desk: Desk) -> None:
    with pytest.raises(StoreHeldError):
        LeaseStore(desk.path).open()


def test_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough to be looked at as one" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        LeaseStore(tmp_path / "text").open()


class Allocating(RuleBasedStateMachine):
    """Callers, clocks, devices and restarts in any order: what is promised always fits, on disk as in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.desk = Desk(Path(self.folder.name) / "leases.sqlite3")
        self.totals = {"a": 1000, "b": 600}
        self.strangers = {"a": 0, "b": 0}
        self.made: dict[str, Lease] = {}
        self.poll()

    def teardown(self) -> None:
        self.desk.registry.close()
        self.folder.cleanup()

    @rule()
    def poll(self) -> None:
        self.desk.registry.observe(
            poll(
                *(
                    device(uuid, total_mb=total, used_mb=self.strangers[uuid], index=n)
                    for n, (uuid, total) in enumerate(self.totals.items())
                )
            )
        )

    @rule(
        memory_mb=st.integers(1, 1000),
        count=st.integers(1, 2),
        exclusive=st.booleans(),
        ttl_s=st.sampled_from([10.0, 100.0]),
        key=st.sampled_from(["", "", "k"]),
    )
    def allocate(self, memory_mb: int, count: int, exclusive: bool, ttl_s: float, key: str) -> None:
        asked = request(memory_mb, device_count=count, exclusive=exclusive, ttl_s=ttl_s, idempotency_key=key)
        before = {lease.id: lease for lease in self.desk.registry.snapshot().leases}
        lease = self.granted(asked)
        if lease is None:
            assert tuple(before.values()) == self.desk.registry.snapshot().leases
        elif lease.id not in before:
            assert len({allocated.uuid for allocated in lease.devices}) == count
            for allocated in lease.devices:
                others = [each for each in before.values() if each.allocation_on(allocated.uuid)]
                assert not (exclusive and others)
                assert not any(other.exclusive for other in others)
        else:
            assert key

    def granted(self, asked: LeaseRequest) -> Lease | None:
        try:
            return self.desk.registry.allocate(asked)
        except TorchlessError as error:
            if error.kind in {ErrorKind.OVERLOADED, ErrorKind.INPUT_TOO_LARGE, ErrorKind.ALREADY_EXISTS}:
                return None
            raise

    @rule(pick=st.integers(0, 10))
    def release(self, pick: int) -> None:
        leases = self.desk.registry.snapshot().leases
        if leases:
            self.desk.registry.release(leases[pick % len(leases)].id)

    @rule(pick=st.integers(0, 10))
    def renew(self, pick: int) -> None:
        leases = [each for each in self.desk.registry.snapshot().leases if each.state is LeaseState.ACTIVE]
        if leases:
            self.desk.registry.renew(leases[pick % len(leases)].id, 50.0)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.desk.now += seconds

    @precondition(lambda self: len(self.totals) == 2)
    @rule()
    def lose_a_device(self) -> None:
        self.totals.pop("b")
        self.poll()

    @precondition(lambda self: len(self.totals) == 1)
    @rule()
    def bring_it_back(self) -> None:
        self.totals["b"] = 600
        self.poll()

    @rule()
    def restart(self) -> None:
        before = self.desk.registry.snapshot().leases
        self.desk.restart()
        self.poll()
        assert self.desk.registry.snapshot().leases == before

    @invariant()
    def never_over_allocated(self) -> None:
        promised = dict.fromkeys(self.totals, 0)
        for lease in self.desk.registry.snapshot().leases:
            assert lease.expires > self.desk.now
            for allocated in lease.devices:
                if not allocated.lost:
                    promised[allocated.uuid] += allocated.memory_mb
        for uuid, total in self.totals.items():
            assert promised[uuid] <= total - 100


TestAllocating = Allocating.TestCase
TestAllocating.settings = hypothesis_settings(max_examples=40, stateful_step_count=30, deadline=None)
