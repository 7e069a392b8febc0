"""The stack on one machine: starts the services, watches them, and leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import secrets
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from torchless.cli.errors import StackError
from torchless.cli.log_tail import log_tail
from torchless.cli.orphans import kill_orphans
from torchless.cli.ports import check_ports
from torchless.cli.services import Service
from torchless.cli.supervisord import Process, State, Supervisord

POLL_S = 0.5
"""Interval between polls of supervisord, in seconds."""
READY_POLL_S = 0.5
"""Interval between readiness checks of a service, in seconds."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A service became ready."""

    service: Service
    """The service."""
    after_s: float
    """Seconds since the stack started, or since the service last died."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process of a service ended by itself; supervisord restarts it."""

    service: Service
    """The service."""
    how: str
    """How it ended, in supervisord's words, for example `exit status 1` or `terminated by SIGKILL`."""
    log_tail: str
    """The last lines of its log."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A service died too often or cannot start; supervisord does not restart it."""

    service: Service
    """The service."""
    reason: str
    """Why it could not start; empty if it started and died."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A service takes longer than usual to become ready; BentoML's supervisor may be restarting its worker."""

    service: Service
    """The service."""
    log_tail: str
    """The last lines of its log."""


Event = Ready | Died | GivenUp | Slow


class Stack:
    """Runs services under supervision while the context lasts.

        async with Stack(services, folder, directory=project) as stack:
            async for event in stack.events(): ...

    Args:
        services: The services, in the order in which they start.
        folder: Folder for state and logs, of one stack at a time. Created if it does not exist.
        directory: Working directory of the services.
        grace_s: Time that each service has to stop before it is killed, in seconds.
        start_retries: How often a service that dies at once is restarted; attempt n starts after n seconds.
        slow_after_s: Time after which a service that is not ready is reported as slow, in seconds.
    """

    def __init__(
        self,
        services: Sequence[Service],
        folder: Path,
        *,
        directory: Path,
        grace_s: int = 40,
        start_retries: int = 8,
        slow_after_s: float = 30.0,
    ) -> None:
        self._services = {service.name: service for service in services}
        self._folder = folder.resolve()
        self._marker = secrets.token_hex(8)
        self._grace_s = grace_s
        self._slow_after_s = slow_after_s
        self._lock: IO[str] | None = None
        self._seen: dict[str, Process] = {}
        self._waiting: dict[str, float] = {}
        self._events: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._supervisord = Supervisord(
            services,
            self._folder,
            directory=directory,
            marker=self._marker,
            grace_s=grace_s,
            start_retries=start_retries,
        )

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            check_ports([port for service in self._services.values() for port in service.ports])
            self._waiting = dict.fromkeys(self._services, time.monotonic())
            await self._supervisord.start()
            self._watch(self._watch_processes())
            for service in self._services.values():
                self._watch(self._watch_readiness(service))
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def services(self) -> tuple[Service, ...]:
        """The services, in the order in which they start."""
        return tuple(self._services.values())

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Names of the services that are not ready."""
        return tuple(self._waiting)

    def log(self, name: str) -> Path:
        """The log file of a service."""
        return self._supervisord.log(name)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yields events of the services as they happen, without end.

        Raises:
            StackError: supervisord ended.
        """
        while True:
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            yield event

    async def until_ready(self) -> AsyncGenerator[Event, None]:
        """Yields events until every service is ready.

        Raises:
            StackError: A service cannot start.
        """
        async with contextlib.aclosing(self.events()) as events:
            async for event in events:
                yield event
                if isinstance(event, GivenUp):
                    raise StackError(f"{event.service.name} does not start; its log is {self.log(event.service.name)}")
                if not self._waiting:
                    return

    async def stop(self) -> None:
        """Stops every service in reverse order, and kills their orphans."""
        for task in self._tasks:
            task.cancel()
        try:
            self._supervisord.ask_to_stop()
            await asyncio.to_thread(self._supervisord.wait, self._grace_s * len(self._services) + 5)
        finally:
            # Also when a second Ctrl-C cancels the wait.
            self._supervisord.kill()
            kill_orphans(self._marker)
            if self._lock is not None:
                self._lock.close()

    def _take_lock(self) -> None:
        """Locks the folder, and kills the orphans of an earlier stack.

        The kernel releases the lock when this process ends, for whatever reason.
        """
        self._lock = (self._folder / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StackError(
                f"another stack uses {self._folder}: stop it, or choose another folder with --state"
            ) from error
        self._lock.seek(0)
        if earlier := self._lock.read().strip():
            kill_orphans(earlier)
        self._lock.truncate(0)
        self._lock.write(self._marker)
        self._lock.flush()

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` in the background; its failure is raised to the reader of the events."""

        def report(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._events.put_nowait(error)

        task = asyncio.create_task(work)
        task.add_done_callback(report)
        self._tasks.append(task)

    async def _watch_processes(self) -> None:
        while self._supervisord.alive:
            for process in await asyncio.to_thread(self._supervisord.processes):
                before, self._seen[process.name] = self._seen.get(process.name), process
                if process.stopped_at != (before.stopped_at if before else 0):
                    await self._on_death(process)
                if process.state is State.FATAL and (before is None or before.state is not State.FATAL):
                    self._events.put_nowait(GivenUp(self._services[process.name], process.spawn_error))
            await asyncio.sleep(POLL_S)
        raise StackError(f"supervisord ended unexpectedly; see supervisord.log in {self._folder}")

    async def _on_death(self, process: Process) -> None:
        how = self._supervisord.how_it_ended(process.name)
        self._events.put_nowait(Died(self._services[process.name], how, log_tail(self.log(process.name))))
        self._waiting[process.name] = time.monotonic()
        # Orphaned workers would hold the port; the workers of the new process are below supervisord.
        marker, alive = f"{self._marker}/{process.name}", self._supervisord.pid
        await asyncio.to_thread(kill_orphans, marker, except_below=alive)

    async def _watch_readiness(self, service: Service) -> None:
        reported = None
        while True:
            since = self._waiting.get(service.name)
            ready = since is not None and await service.ready()
            # If the service died during the check, the result is about the dead process.
            if since is not None and self._waiting.get(service.name) == since:
                waited = time.monotonic() - since
                if ready:
                    del self._waiting[service.name]
                    self._events.put_nowait(Ready(service, waited))
                elif waited > self._slow_after_s and reported != since:
                    reported = since
                    self._events.put_nowait(Slow(service, log_tail(self.log(service.name))))
            await asyncio.sleep(READY_POLL_S)
