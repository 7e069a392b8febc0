"""The GPU use case, without a transport: connects the leases, the monitor and the watchers."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from bentos.gpu import metrics
from bentos.gpu.driver import GPUDriver
from bentos.gpu.events import Event
from bentos.gpu.inventory import DriverPoll
from bentos.gpu.leases import Lease, LeaseRequest
from bentos.gpu.monitor import Monitor
from bentos.gpu.registry import LeaseRegistry
from bentos.gpu.settings import GPUSettings
from bentos.gpu.snapshot import Snapshot
from bentos.gpu.store import LeaseStore, StoreHeldError
from bentos.gpu.validation import check_interval, check_request, check_ttl
from bentos.gpu.watchers import Update, Watchers
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_STORE_RETRY_S = 0.2


class GPUManager:
    """The GPUs of this machine and the leases on them.

    The event loop touches neither the driver nor the disk: the driver is used on the monitor's thread, and the registry
    on a separate thread that handles leases one after the other.

    Args:
        settings: The bento's settings.
        driver: Opened and used on the monitor's thread.
    """

    def __init__(self, settings: GPUSettings, driver: GPUDriver) -> None:
        self._settings = settings
        self._watchers = Watchers(settings.watch)
        self._registry = LeaseRegistry(LeaseStore(Path(settings.store)), settings, self._publish)
        self._registry_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpu-leases")
        self._monitor = Monitor(driver, settings.driver, self._observe)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._waiting = 0

    async def start(self, report: Callable[[str], None] = lambda message: None) -> None:
        """Opens the store and polls the devices once, or until the driver's timeout.

        Args:
            report: Takes what the start waits for.

        Raises:
            TorchlessError: INTERNAL, when the store cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        await self._open_registry(report)
        self._monitor.start()
        await self._until_fresh()
        self._ticking = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Ends the threads and closes the driver and the store."""
        if self._ticking is not None:
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
            await asyncio.to_thread(self._monitor.stop)
        await self._on_registry_thread(self._registry.close)
        self._registry_thread.shutdown(wait=False)

    async def snapshot(self) -> Snapshot:
        """The current state, without expired leases."""
        with self._admitted():
            return await self._on_registry_thread(self._registry.snapshot)

    async def allocate(self, request: LeaseRequest) -> Lease:
        """Makes a lease from a fresh reading of the devices. The lease is on disk when this returns.

        Raises:
            TorchlessError: As the contract's AllocateGPU says.
        """
        check_request(request, self._settings)
        with self._admitted():
            await self._until_fresh()
            return await self._on_registry_thread(self._registry.allocate, request)

    async def renew(self, lease_id: str, ttl_s: float | None) -> Lease:
        """Extends a lease.

        Raises:
            TorchlessError: As the contract's RenewAllocation says.
        """
        if ttl_s is not None:
            check_ttl(ttl_s, self._settings)
        with self._admitted():
            return await self._on_registry_thread(self._registry.renew, lease_id, ttl_s)

    async def release(self, lease_id: str) -> Lease:
        """Ends a lease.

        Raises:
            TorchlessError: NOT_FOUND.
        """
        with self._admitted():
            return await self._on_registry_thread(self._registry.release, lease_id)

    def watch(self, interval_s: float | None) -> AsyncGenerator[Update, None]:
        """Yields the status without end; see `Watchers.watch`.

        Raises:
            TorchlessError: INVALID_INPUT, or OVERLOADED when there are too many watchers.
        """
        own = self._settings.watch
        if interval_s is not None:
            check_interval(interval_s, own)
        return self._watchers.watch(own.interval_s if interval_s is None else interval_s)

    async def _open_registry(self, report: Callable[[str], None]) -> None:
        warned = False
        while True:
            try:
                return await self._on_registry_thread(self._registry.open)
            except StoreHeldError:
                # The previous process may still be finishing its calls.
                if not warned:
                    logger.warning("another process holds the lease store; waiting until it exits")
                    report("the service waits for another process that holds its lease store")
                warned = True
                await asyncio.sleep(_STORE_RETRY_S)
            except (sqlite3.Error, OSError) as error:
                failure = TorchlessError(ErrorKind.INTERNAL, "the service cannot open its lease store; see its log")
                failure.add_note(f"{self._settings.store}: {error}")
                raise failure from error

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """Counts a waiting call; refuses it above the limit."""
        if self._waiting >= self._settings.max_waiting_calls:
            raise TorchlessError(
                ErrorKind.OVERLOADED, "too many calls wait for the lease registry; retry shortly", retry_after_s=1.0
            )
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _on_registry_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._registry_thread, work, *arguments)

    async def _until_fresh(self) -> None:
        """Waits for a fresh reading of the devices, at most for the driver's timeout."""
        if await self._report_if_stalled():
            return
        polled = asyncio.wrap_future(self._monitor.fresh())
        try:
            async with asyncio.timeout(self._settings.driver.timeout_s):
                await polled
        except TimeoutError:
            await self._report_if_stalled()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sweep_interval_s)
            try:
                await self._report_if_stalled()
                await self._on_registry_thread(self._registry.sweep)
            except Exception:  # for instance a full disk; leases end at their time nevertheless
                logger.exception("expired leases could not be swept; will retry")

    async def _report_if_stalled(self) -> bool:
        """Whether the driver does not respond; if so, tells the registry."""
        if self._monitor.poll_duration_s() <= self._settings.driver.timeout_s:
            return False
        poll = DriverPoll(None, "the NVIDIA driver does not respond", stalled=True)
        await self._on_registry_thread(self._registry.observe, poll)
        return True

    def _observe(self, poll: DriverPoll) -> None:
        """Called on the monitor's thread."""
        self._registry_thread.submit(self._registry.observe, poll).result()

    def _publish(self, snapshot: Snapshot, events: Iterable[Event]) -> None:
        """Called on the registry's thread."""
        metrics.record(snapshot, events)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._watchers.publish, snapshot, events)
