"""The book of leases over a real store: expiry, restart, idempotency, lost devices, and never too much."""

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
from bentos.gpu.inventory import View
from bentos.gpu.leases import Lease, LeaseState, Wanted
from bentos.gpu.registry import LeaseBook, Snapshot
from bentos.gpu.settings import GPUSettings
from bentos.gpu.store import LeaseStore, StoreHeldError
from tests.fake_gpu_driver import device
from torchless.contracts.errors import ErrorKind, TorchlessError


def view(*devices: DeviceReading, **gone: str) -> View:
    return View(Reading("1", "12.8", "12", devices, {int(n.removeprefix("n")): why for n, why in gone.items()}))


def wanted(memory_mb: int = 400, **more: Any) -> Wanted:
    return Wanted(**{"memory_mb": memory_mb, "holder": "h", "ttl_s": 60.0, **more})


@dataclass
class Desk:
    """A book, with a clock that a test sets and what it published."""

    path: Path
    settings: GPUSettings = field(default_factory=lambda: GPUSettings(reserve_mb=100))
    now: float = 1_000_000.0
    events: list[Event] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book = self._opened()

    def _opened(self) -> LeaseBook:
        def publish(snapshot: Snapshot, events: Any) -> None:
            self.snapshots.append(snapshot)
            self.events.extend(events)

        book = LeaseBook(LeaseStore(self.path), self.settings, publish, lambda: self.now)
        book.open()
        return book

    def restart(self) -> None:
        self.book.close()
        self.book = self._opened()

    def kinds(self) -> list[EventKind]:
        kinds = [event.kind for event in self.events]
        self.events.clear()
        return kinds


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Two devices of 1,000 MiB, 100 of them reserved."""
    desk = Desk(tmp_path / "leases.sqlite3")
    desk.book.observe(view(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    desk.events.clear()
    yield desk
    desk.book.close()


def refusal(work: Callable[..., object], *arguments: Any) -> TorchlessError:
    with pytest.raises(TorchlessError) as caught:
        work(*arguments)
    return caught.value


def test_a_lease_says_what_it_holds_and_until_when(desk: Desk) -> None:
    lease = desk.book.allocate(wanted(pid=7, tenant="t"))
    assert (lease.created, lease.expires, lease.pid, lease.tenant) == (desk.now, desk.now + 60, 7, "t")
    snapshot = desk.book.snapshot()
    assert snapshot.leases == (lease,)
    assert [(d.leased_mb, d.allocatable_mb) for d in snapshot.devices] == [(400, 500), (0, 900)]
    assert desk.kinds() == [EventKind.ALLOCATED]


def test_an_exclusive_lease_leaves_nothing_of_its_device(desk: Desk) -> None:
    desk.book.allocate(wanted(exclusive=True))
    first, second = desk.book.snapshot().devices
    assert (first.allocatable, first.allocatable_mb, second.allocatable_mb) == (False, 0, 900)


def test_a_lease_ends_at_its_last_moment_without_any_sweep(desk: Desk) -> None:
    lease = desk.book.allocate(wanted(800))
    desk.now += 59.999
    assert desk.book.snapshot().leases == (lease,)
    desk.now += 0.002
    assert desk.book.snapshot().leases == ()
    assert desk.kinds() == [EventKind.ALLOCATED, EventKind.EXPIRED]
    error = refusal(desk.book.renew, lease.id, None)
    assert (error.kind, error.metadata["reason"]) == (ErrorKind.NOT_FOUND, "expired")
    assert "expired" in error.message


def test_renewing_counts_from_now_and_keeps_its_length(desk: Desk) -> None:
    lease = desk.book.allocate(wanted())
    desk.now += 30
    assert desk.book.renew(lease.id, 10.0).expires == desk.now + 10
    desk.now += 5
    assert desk.book.renew(lease.id, None).expires == desk.now + 10


def test_released_is_released_once(desk: Desk) -> None:
    lease = desk.book.allocate(wanted())
    assert desk.book.release(lease.id) == lease
    again = refusal(desk.book.release, lease.id)
    assert (again.kind, again.metadata["reason"]) == (ErrorKind.NOT_FOUND, "released")
    unknown = refusal(desk.book.release, "nothing")
    assert (unknown.kind, unknown.metadata["reason"]) == (ErrorKind.NOT_FOUND, "unknown")


def test_leases_and_their_ends_survive_a_restart(desk: Desk) -> None:
    kept = desk.book.allocate(wanted(pid=3, tenant="t", idempotency_key="k", exclusive=True))
    renewed = desk.book.renew(desk.book.allocate(wanted()).id, 500.0)
    released = desk.book.release(desk.book.allocate(wanted(100)).id)
    short = desk.book.allocate(wanted(100, ttl_s=5.0))
    desk.now += 10
    desk.restart()
    desk.book.observe(view(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    assert desk.book.snapshot().leases == (kept, renewed)
    assert refusal(desk.book.renew, released.id, None).metadata["reason"] == "released"
    assert refusal(desk.book.renew, short.id, None).metadata["reason"] == "expired"
    assert desk.book.allocate(wanted(pid=3, tenant="t", idempotency_key="k", exclusive=True)) == kept


def test_how_old_leases_ended_is_forgotten_in_time(desk: Desk) -> None:
    lease = desk.book.release(desk.book.allocate(wanted()).id)
    desk.now += desk.settings.remember_ended_s + 61
    desk.book.sweep()
    desk.restart()
    assert refusal(desk.book.release, lease.id).metadata["reason"] == "unknown"


def test_a_repeated_key_answers_the_same_lease_while_it_is_there(desk: Desk) -> None:
    asked = wanted(800, idempotency_key="k", tenant="t")
    lease = desk.book.allocate(asked)
    assert [desk.book.allocate(asked) for _ in range(100)] == [lease] * 100
    assert len(desk.book.snapshot().leases) == 1
    error = refusal(desk.book.allocate, replace(asked, memory_mb=801))
    assert error.kind is ErrorKind.ALREADY_EXISTS
    other = desk.book.allocate(replace(asked, tenant="other"))
    assert other.id != lease.id
    desk.book.release(lease.id)
    assert desk.book.allocate(asked).id not in {lease.id, other.id}


def test_a_key_is_free_when_its_lease_has_expired(desk: Desk) -> None:
    first = desk.book.allocate(wanted(idempotency_key="k"))
    desk.now += 61
    assert desk.book.allocate(wanted(500, idempotency_key="k")).id != first.id


def test_a_repeat_is_answered_without_a_device_too(desk: Desk) -> None:
    lease = desk.book.allocate(wanted(idempotency_key="k"))
    desk.book.observe(View(None, "the driver went"))
    again = desk.book.allocate(wanted(idempotency_key="k"))
    assert (again.id, again.state) == (lease.id, LeaseState.LOST)


def test_leases_on_a_device_that_falls_off_the_bus_are_lost(desk: Desk) -> None:
    here = desk.book.allocate(wanted(800))
    there = desk.book.allocate(wanted(700))
    assert (here.shares[0].uuid, there.shares[0].uuid) == ("a", "b")
    desk.kinds()
    desk.book.observe(view(device("b", total_mb=1000, index=1), n0="it fell off the bus"))
    assert desk.kinds() == [EventKind.DEVICE_LOST, EventKind.ALLOCATION_LOST]
    lost, kept = desk.book.snapshot().leases
    assert (lost.id, lost.state, kept) == (here.id, LeaseState.LOST, there)
    assert "fell off the bus" in lost.lost_reason
    assert [(each.uuid, each.reason) for each in desk.book.snapshot().lost_devices] == [("a", "it fell off the bus")]
    assert refusal(desk.book.renew, here.id, None).kind is ErrorKind.GPU_UNAVAILABLE
    assert desk.book.allocate(wanted(100)).shares[0].uuid == "b"


def test_a_lost_lease_stays_lost_across_a_restart_and_when_the_device_is_back(desk: Desk) -> None:
    lease = desk.book.allocate(wanted(800))
    desk.book.observe(view(device("b", total_mb=1000, index=1), n0="it fell off the bus"))
    desk.restart()
    desk.book.observe(view(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    (lost,) = desk.book.snapshot().leases
    assert (lost.id, lost.state) == (lease.id, LeaseState.LOST)
    # Its memory went with the device, so it is there for others.
    assert desk.book.allocate(wanted(900, device_uuids=frozenset({"a"}))).shares[0].uuid == "a"
    assert desk.book.release(lease.id).state is LeaseState.LOST


def test_a_lost_lease_still_holds_its_other_devices(desk: Desk) -> None:
    lease = desk.book.allocate(wanted(800, device_count=2))
    desk.book.observe(view(device("b", total_mb=1000, index=1), n0="it fell off the bus"))
    assert refusal(desk.book.allocate, wanted(200)).kind is ErrorKind.OVERLOADED
    desk.book.release(lease.id)
    assert desk.book.allocate(wanted(200)).shares[0].uuid == "b"


def test_without_any_device_left_there_is_no_gpu_and_a_reason(desk: Desk) -> None:
    desk.book.allocate(wanted())
    desk.kinds()
    desk.book.observe(View(None, "the NVIDIA driver is not loaded"))
    kinds = desk.kinds()
    assert kinds == [EventKind.DRIVER_LOST, *[EventKind.DEVICE_LOST] * 2, EventKind.ALLOCATION_LOST]
    error = refusal(desk.book.allocate, wanted())
    assert error.kind is ErrorKind.GPU_UNAVAILABLE
    assert "not loaded" in error.message
    snapshot = desk.book.snapshot()
    assert (snapshot.available, snapshot.reason, snapshot.devices) == (False, "the NVIDIA driver is not loaded", ())
    desk.book.observe(view(device("a", total_mb=1000)))
    assert desk.kinds() == [EventKind.DRIVER_BACK, EventKind.DEVICE_ADDED]
    assert [each.uuid for each in desk.book.snapshot().lost_devices] == ["b"]


def test_a_driver_without_devices_says_so(desk: Desk) -> None:
    desk.book.observe(view())
    assert "lists no GPU" in desk.book.snapshot().reason


def test_a_driver_that_does_not_answer_loses_no_lease(desk: Desk) -> None:
    lease = desk.book.allocate(wanted())
    desk.book.observe(View(None, "the driver does not answer", stalled=True))
    assert refusal(desk.book.allocate, wanted()).kind is ErrorKind.GPU_UNAVAILABLE
    assert desk.book.renew(lease.id, 100.0).state is LeaseState.ACTIVE
    desk.book.observe(view(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    assert [each.state for each in desk.book.snapshot().leases] == [LeaseState.ACTIVE]
    assert desk.book.snapshot().lost_devices == ()


def test_mig_instances_that_are_cut_anew_leave_no_trace(desk: Desk) -> None:
    gpu = replace(device("a"), mig_enabled=True)
    one = replace(device("mig-1", total_mb=900), parent_uuid="a", mig_index=0)
    desk.book.observe(view(gpu, one))
    lease = desk.book.allocate(wanted())
    assert lease.shares[0].uuid == "mig-1"
    desk.book.observe(view(gpu, replace(one, uuid="mig-2")))
    snapshot = desk.book.snapshot()
    assert [each.uuid for each in snapshot.lost_devices] == ["b"]
    assert [each.state for each in snapshot.leases] == [LeaseState.LOST]


def test_as_many_allocations_as_the_service_keeps_and_no_more(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "few.sqlite3", GPUSettings(max_allocations=2))
    desk.book.observe(view(device("a")))
    desk.book.allocate(wanted(1, ttl_s=20.0))
    desk.book.allocate(wanted(1))
    error = refusal(desk.book.allocate, wanted(1))
    assert (error.kind, error.retry_after_s) == (ErrorKind.OVERLOADED, 20.0)
    desk.book.close()


def test_a_lease_that_the_disk_refuses_was_not_made(desk: Desk) -> None:
    connection = desk.book._store._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count=1")  # as a full disk: nothing more fits into the file
    made: list[Lease] = []

    def fill() -> None:
        for n in range(200):
            made.append(desk.book.allocate(wanted(1, holder="h" * 250, idempotency_key=str(n))))  # noqa: PERF401

    error = refusal(fill)
    assert error.kind is ErrorKind.INTERNAL
    assert "full" not in error.message
    assert desk.book.snapshot().leases == tuple(made)
    connection.execute("PRAGMA max_page_count=100000")
    kept = desk.book.allocate(wanted(1))
    desk.restart()
    assert desk.book.snapshot().leases == (*made, kept)


def test_what_happens_while_the_disk_refuses_is_known_and_written_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = desk.book.allocate(wanted(800))
    over = desk.book.allocate(wanted(700, ttl_s=10.0, idempotency_key="k"))
    assert (lost.shares[0].uuid, over.shares[0].uuid) == ("a", "b")

    def refuse(leases: object, now: float) -> None:
        raise TorchlessError(ErrorKind.INTERNAL, "the disk is full")

    monkeypatch.setattr(desk.book._store, "write", refuse)
    desk.now += 11
    desk.book.observe(view(device("b", total_mb=1000, index=1), n0="it fell off the bus"))
    assert [(each.id, each.state) for each in desk.book.snapshot().leases] == [(lost.id, LeaseState.LOST)]
    assert refusal(desk.book.allocate, wanted(1)).kind is ErrorKind.INTERNAL
    monkeypatch.undo()
    again = desk.book.allocate(wanted(600, idempotency_key="k"))
    desk.restart()
    desk.book.observe(view(device("a", total_mb=1000), device("b", total_mb=1000, index=1)))
    assert [(each.id, each.state) for each in desk.book.snapshot().leases] == [
        (lost.id, LeaseState.LOST),
        (again.id, LeaseState.ACTIVE),
    ]
    assert refusal(desk.book.renew, over.id, None).metadata["reason"] == "expired"


def test_every_change_is_synced_to_the_disk(desk: Desk) -> None:
    """A kill does not show it; only a loss of power would (https://www.sqlite.org/pragma.html#pragma_synchronous)."""
    connection = desk.book._store._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_one_process_has_the_store(desk: Desk) -> None:
    with pytest.raises(StoreHeldError):
        LeaseStore(desk.path).open()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
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
        self.look()

    def teardown(self) -> None:
        self.desk.book.close()
        self.folder.cleanup()

    @rule()
    def look(self) -> None:
        self.desk.book.observe(
            view(
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
        asked = wanted(memory_mb, device_count=count, exclusive=exclusive, ttl_s=ttl_s, idempotency_key=key)
        before = {lease.id: lease for lease in self.desk.book.snapshot().leases}
        lease = self.granted(asked)
        if lease is None:
            assert tuple(before.values()) == self.desk.book.snapshot().leases
        elif lease.id not in before:
            assert len({share.uuid for share in lease.shares}) == count
            for share in lease.shares:
                others = [each for each in before.values() if each.share_on(share.uuid)]
                assert not (exclusive and others)
                assert not any(other.exclusive for other in others)
        else:
            assert key

    def granted(self, asked: Wanted) -> Lease | None:
        try:
            return self.desk.book.allocate(asked)
        except TorchlessError as error:
            if error.kind in {ErrorKind.OVERLOADED, ErrorKind.INPUT_TOO_LARGE, ErrorKind.ALREADY_EXISTS}:
                return None
            raise

    @rule(pick=st.integers(0, 10))
    def release(self, pick: int) -> None:
        leases = self.desk.book.snapshot().leases
        if leases:
            self.desk.book.release(leases[pick % len(leases)].id)

    @rule(pick=st.integers(0, 10))
    def renew(self, pick: int) -> None:
        leases = [each for each in self.desk.book.snapshot().leases if each.state is LeaseState.ACTIVE]
        if leases:
            self.desk.book.renew(leases[pick % len(leases)].id, 50.0)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.desk.now += seconds

    @precondition(lambda self: len(self.totals) == 2)
    @rule()
    def lose_a_device(self) -> None:
        self.totals.pop("b")
        self.look()

    @precondition(lambda self: len(self.totals) == 1)
    @rule()
    def bring_it_back(self) -> None:
        self.totals["b"] = 600
        self.look()

    @rule()
    def restart(self) -> None:
        before = self.desk.book.snapshot().leases
        self.desk.restart()
        self.look()
        assert self.desk.book.snapshot().leases == before

    @invariant()
    def never_over_allocated(self) -> None:
        promised = dict.fromkeys(self.totals, 0)
        for lease in self.desk.book.snapshot().leases:
            assert lease.expires > self.desk.now
            for share in lease.shares:
                if not share.lost:
                    promised[share.uuid] += share.memory_mb
        for uuid, total in self.totals.items():
            assert promised[uuid] <= total - 100


TestAllocating = Allocating.TestCase
TestAllocating.settings = hypothesis_settings(max_examples=40, stateful_step_count=30, deadline=None)
