"""The manager with a fake driver: fresh readings, threads, a hanging driver, watchers, and two processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bentos.gpu.events import EventKind
from bentos.gpu.leases import LeaseRequest, LeaseState
from bentos.gpu.manager import GPUManager
from bentos.gpu.settings import DriverSettings, GPUSettings, WatchSettings
from tests.fake_gpu_driver import FakeGPUDriver, device
from tests.waiting import until
from torchless.contracts.errors import ErrorKind, TorchlessError

PATIENCE_S = 20
SLOW_POLL = DriverSettings(poll_interval_s=3600, max_reading_age_s=0, reopen_interval_s=0.02)


@asynccontextmanager
async def managing(fake: FakeGPUDriver, path: Path, **more: Any) -> AsyncIterator[GPUManager]:
    settings = GPUSettings(store=str(path / "leases.sqlite3"), **{"reserve_mb": 100, "sweep_interval_s": 0.02, **more})
    manager = GPUManager(settings, fake)
    await manager.start()
    try:
        yield manager
    finally:
        await manager.stop()


def request(memory_mb: int = 400, **more: Any) -> LeaseRequest:
    return LeaseRequest(**{"memory_mb": memory_mb, "holder": "h", "ttl_s": 60.0, **more})


async def test_allocation_uses_a_fresh_reading(tmp_path: Path) -> None:
    driver = FakeGPUDriver([device("a", total_mb=1000)])
    async with managing(driver, tmp_path, driver=SLOW_POLL) as manager:
        driver.devices = [device("a", total_mb=1000, used_mb=600)]  # a stranger came since the last poll
        with pytest.raises(TorchlessError) as caught:
            await manager.allocate(request())
        assert caught.value.kind is ErrorKind.OVERLOADED
        driver.devices = []
        with pytest.raises(TorchlessError) as caught:
            await manager.allocate(request())
        assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE


async def test_driver_is_called_on_one_thread_outside_the_event_loop(tmp_path: Path) -> None:
    driver = FakeGPUDriver([device("a")])
    async with managing(driver, tmp_path, driver=SLOW_POLL) as manager:
        await asyncio.gather(*(manager.allocate(request(1)) for _ in range(20)))
    assert len(driver.threads) == 1
    assert threading.get_ident() not in driver.threads
    assert driver.opened == driver.closed == 1


async def test_hundred_concurrent_allocations_never_exceed_the_memory(tmp_path: Path) -> None:
    driver = FakeGPUDriver([device("a", total_mb=1000), device("b", total_mb=1000)])
    async with managing(driver, tmp_path) as manager:
        outcomes = await asyncio.gather(*(manager.allocate(request(90)) for _ in range(100)), return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, BaseException)]
    assert len(outcomes) - len(refused) == 20
    assert {each.kind for each in refused if isinstance(each, TorchlessError)} == {ErrorKind.OVERLOADED}
    assert all(isinstance(each, TorchlessError) for each in refused)


async def test_calls_above_the_waiting_limit_are_refused(tmp_path: Path) -> None:
    driver = FakeGPUDriver([device("a", total_mb=1000)])
    async with managing(driver, tmp_path, max_waiting_calls=3) as manager:
        outcomes = await asyncio.gather(*(manager.snapshot() for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(each, TorchlessError) for each in outcomes) == 7
        assert (await manager.snapshot()).available


async def test_hanging_driver_stops_only_new_leases(tmp_path: Path) -> None:
    driver = FakeGPUDriver([device("a", total_mb=1000)])
    own = DriverSettings(poll_interval_s=0.02, timeout_s=0.1, max_reading_age_s=0)
    async with managing(driver, tmp_path, driver=own) as manager:
        lease = await manager.allocate(request())
        driver.hold = threading.Event()

        async def says_so() -> bool:
            return "does not respond" in (await manager.snapshot()).reason

        await until(says_so)
        with pytest.raises(TorchlessError) as caught:
            await manager.allocate(request())
        assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE
        assert (await manager.renew(lease.id, None)).state is LeaseState.ACTIVE
        driver.hold.set()
        driver.hold = None

        async def is_back() -> bool:
            return (await manager.snapshot()).available

        await until(is_back)
        assert [each.state for each in (await manager.snapshot()).leases] == [LeaseState.ACTIVE]


async def test_returned_driver_is_found(tmp_path: Path) -> None:
    driver = FakeGPUDriver([device("a")], missing="the driver is not installed")
    own = DriverSettings(poll_interval_s=0.02, reopen_interval_s=0.02)
    async with managing(driver, tmp_path, driver=own) as manager:
        before = await manager.snapshot()
        assert (before.available, before.reason, before.devices) == (False, "the driver is not installed", ())
        driver.missing = ""

        async def is_there() -> bool:
            return (await manager.snapshot()).available

        await until(is_there)
        gone = driver.devices.pop()

        async def is_lost() -> bool:
            return [each.uuid for each in (await manager.snapshot()).lost_devices] == ["a"]

        await until(is_lost)
        driver.devices.append(gone)
        await until(is_there)
        assert (await manager.snapshot()).lost_devices == ()


async def test_expired_leases_are_swept_and_reported(tmp_path: Path) -> None:
    driver = FakeGPUDriver([device("a", total_mb=1000)])
    async with (
        managing(driver, tmp_path, min_ttl_s=0.01, driver=SLOW_POLL) as manager,
        aclosing(manager.watch(60.0)) as updates,
    ):
        first = await anext(updates)
        assert (first.events, first.snapshot.leases) == ((), ())
        lease = await manager.allocate(request(ttl_s=0.2))
        kinds: list[EventKind] = []
        async with asyncio.timeout(PATIENCE_S):
            while EventKind.EXPIRED not in kinds:
                update = await anext(updates)
                kinds += [event.kind for event in update.events]
                assert all(event.allocation_id == lease.id for event in update.events)
        assert kinds == [EventKind.ALLOCATED, EventKind.EXPIRED]
        assert update.snapshot.leases == ()


async def test_status_is_sent_at_the_interval_without_events(tmp_path: Path) -> None:
    watch = WatchSettings(interval_s=0.02, min_interval_s=0.01)
    async with (
        managing(FakeGPUDriver([device("a")]), tmp_path, watch=watch) as manager,
        aclosing(manager.watch(None)) as updates,
        asyncio.timeout(PATIENCE_S),
    ):
        events = [event for _ in range(4) for event in (await anext(updates)).events]
    assert events == []


async def test_slow_watcher_gets_the_newest_status_and_a_count_of_missed_events(tmp_path: Path) -> None:
    driver = FakeGPUDriver([device("a", total_mb=1000)])
    async with (
        managing(driver, tmp_path, watch=WatchSettings(max_events=5), driver=SLOW_POLL) as manager,
        aclosing(manager.watch(60.0)) as updates,
    ):
        await anext(updates)
        for _ in range(10):
            lease = await manager.allocate(request())
            await manager.release(lease.id)
        kept = await manager.allocate(request())
        update = await anext(updates)
    assert update.snapshot.leases == (kept,)
    assert (len(update.events), update.dropped) == (5, 16)
    assert update.events[-1].allocation_id == kept.id


async def test_watchers_above_the_limit_are_refused(tmp_path: Path) -> None:
    async with managing(FakeGPUDriver(), tmp_path, watch=WatchSettings(max_watchers=1)) as manager:
        async with aclosing(manager.watch(None)) as first:
            await anext(first)
            second = manager.watch(None)
            with pytest.raises(TorchlessError) as caught:
                await anext(second)
            assert caught.value.kind is ErrorKind.OVERLOADED
        async with aclosing(manager.watch(None)) as third:
            assert not (await anext(third)).snapshot.available


async def test_next_process_waits_for_the_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    driver = FakeGPUDriver([device("a", total_mb=1000)])
    async with managing(driver, tmp_path) as first:
        lease = await first.allocate(request())
        following = managing(FakeGPUDriver([device("a", total_mb=1000)]), tmp_path)
        starting = asyncio.create_task(following.__aenter__())
        await until(lambda: "another process holds the lease store" in caplog.text)
        assert not starting.done()
    async with asyncio.timeout(PATIENCE_S):
        second = await starting
    assert (await second.snapshot()).leases == (lease,)
    await following.__aexit__(None, None, None)


async def test_store_that_cannot_be_opened_is_reported_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "leases.sqlite3").write_text("not a database, and long enough to be looked at as one" * 100)
    manager = GPUManager(GPUSettings(store=str(tmp_path / "leases.sqlite3")), FakeGPUDriver())
    with pytest.raises(TorchlessError) as caught:
        await manager.start()
    assert caught.value.kind is ErrorKind.INTERNAL
    assert str(tmp_path) not in caught.value.message
    await manager.stop()


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("memory_mb", {"memory_mb": 0}),
        ("memory_mb", {"memory_mb": -5}),
        ("device_count", {"device_count": 0}),
        ("holder", {"holder": " "}),
        ("holder", {"holder": "h" * 257}),
        ("tenant", {"tenant": "t" * 257}),
        ("idempotency_key", {"idempotency_key": "k" * 257}),
        ("ttl_s", {"ttl_s": 4.9}),
        ("ttl_s", {"ttl_s": 1e9}),
        ("ttl_s", {"ttl_s": float("nan")}),
        ("pid", {"pid": 0}),
        ("device_count", {"device_count": 2, "device_uuids": frozenset({"a"})}),
        ("device_uuids", {"device_uuids": frozenset({"a" * 257})}),
    ],
)
async def test_invalid_request_names_its_field(tmp_path: Path, field: str, changes: dict[str, Any]) -> None:
    async with managing(FakeGPUDriver([device("a", total_mb=1000)]), tmp_path) as manager:
        with pytest.raises(TorchlessError) as caught:
            await manager.allocate(request(**changes))
        assert (caught.value.kind, caught.value.violations[0].field) == (ErrorKind.INVALID_INPUT, field)
        assert (await manager.allocate(request())).devices[0].uuid == "a"


@pytest.mark.parametrize("interval_s", [0.0, -1.0, float("nan"), float("inf"), 0.1])
async def test_watch_interval_out_of_range_is_refused(tmp_path: Path, interval_s: float) -> None:
    async with managing(FakeGPUDriver(), tmp_path) as manager:
        with pytest.raises(TorchlessError) as caught:
            manager.watch(interval_s)
        assert caught.value.kind is ErrorKind.INVALID_INPUT
