"""What the service does, without a transport: the leases, the monitor and those who watch, tied together."""

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
from bentos.gpu.registry import LeaseRegistry, Snapshot
from bentos.gpu.settings import GPUSettings
from bentos.gpu.store import LeaseStore, StoreHeldError
from bentos.gpu.validation import check_interval, check_request, check_ttl
from bentos.gpu.watchers import Update, Watchers
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_STORE_RETRY_S = 0.2


class GPUManager:
    """The GPUs of this machine and the leases on them.

    Nothing here touches the driver or the disk on the event loop: the driver has the monitor's thread, and the book of
    leases a thread of its own, on which all that concerns leases happens one after the other.

    Args:
        settings: The bento's settings.
        driver: Opened when it is there; used on the monitor's thread.
    """

    def __init__(self, settings: GPUSettings, driver: GPUDriver) -> None:
        self._settings = settings
        self._watchers = Watchers(settings.watch)
        self._registry = LeaseRegistry(LeaseStore(Path(settings.store)), settings, self._publish)
        self._registry_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpu-leases")
        self._monitor = Monitor(driver, settings.driver, self._take_in)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._waiting = 0

    async def start(self) -> None:
        """Opens the store and looks at the devices once, or finds that the driver does not answer.

        Raises:
            TorchlessError: INTERNAL, when the store cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        await self._open_registry()
        self._monitor.start()
        await self._until_fresh()
        self._ticking = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Ends the threads and lets go of driver and store."""
        if self._ticking is not None:
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
            await asyncio.to_thread(self._monitor.stop)
        await self._on_registry_thread(self._registry.close)
        self._registry_thread.shutdown(wait=False)

    async def snapshot(self) -> Snapshot:
        """All that is known now; leases that have run out are not in it."""
        with self._admitted():
            return await self._on_registry_thread(self._registry.snapshot)

    async def allocate(self, request: LeaseRequest) -> Lease:
        """Leases what is wanted, by the devices as they are now. It is on disk when this returns.

        Raises:
            TorchlessError: As the contract's AllocateGPU says.
        """
        check_request(request, self._settings)
        with self._admitted():
            await self._until_fresh()
            return await self._on_registry_thread(self._registry.allocate, request)

    async def renew(self, lease_id: str, ttl_s: float | None) -> Lease:
        """Lets a lease run on.

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
        """The status, again and again, for ever; see `Watchers.watch`.

        Raises:
            TorchlessError: INVALID_INPUT, or OVERLOADED when as many watch as may.
        """
        own = self._settings.watch
        if interval_s is not None:
            check_interval(interval_s, own)
        return self._watchers.watch(own.interval_s if interval_s is None else interval_s)

    async def _open_registry(self) -> None:
        told = False
        while True:
            try:
                return await self._on_registry_thread(self._registry.open)
            except StoreHeldError:
                # The process that this one follows may still be finishing its calls.
                if not told:
                    logger.warning("another process has the store of leases; waiting until it leaves")
                told = True
                await asyncio.sleep(_STORE_RETRY_S)
            except (sqlite3.Error, OSError) as error:
                logger.exception("the store of leases cannot be opened")
                raise TorchlessError(
                    ErrorKind.INTERNAL, "the service cannot open its store of leases; its log says why"
                ) from error

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """A caller's place among those who wait; refuses when there is none left."""
        if self._waiting >= self._settings.max_waiting_calls:
            raise TorchlessError(
                ErrorKind.OVERLOADED, "too many calls wait for the leases; try again shortly", retry_after_s=1.0
            )
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _on_registry_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._registry_thread, work, *arguments)

    async def _until_fresh(self) -> None:
        """Until the devices have been read just now; a driver that does not answer in time is taken note of."""
        if await self._note_if_stalled():
            return
        looked = asyncio.wrap_future(self._monitor.fresh())
        try:
            async with asyncio.timeout(self._settings.driver.timeout_s):
                await looked
        except TimeoutError:
            await self._note_if_stalled()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sweep_interval_s)
            try:
                await self._note_if_stalled()
                await self._on_registry_thread(self._registry.sweep)
            except Exception:  # a full disk, say: leases count as ended by their time all the same
                logger.exception("leases that ran out could not be swept; trying again")

    async def _note_if_stalled(self) -> bool:
        """Whether the driver does not answer; the book knows it then."""
        if self._monitor.poll_duration_s() <= self._settings.driver.timeout_s:
            return False
        poll = DriverPoll(None, "the NVIDIA driver does not answer", stalled=True)
        await self._on_registry_thread(self._registry.observe, poll)
        return True

    def _take_in(self, poll: DriverPoll) -> None:
        """On the monitor's thread."""
        self._registry_thread.submit(self._registry.observe, poll).result()

    def _publish(self, snapshot: Snapshot, events: Iterable[Event]) -> None:
        """On the book's thread."""
        metrics.record(snapshot, events)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._watchers.publish, snapshot, events)
