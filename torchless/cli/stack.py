"""The stack on one machine: starts services, watches them, and leaves nothing behind."""

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
"""How often processes are looked at, in seconds."""
ASK_READY_S = 0.5
"""Pause between two questions whether a service is ready, in seconds."""
"""Lines of its log that are shown of a service that died."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A service became ready."""

    service: Service
    """Which."""
    after_s: float
    """Seconds since the stack, or after a death the service, was started."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process of a service ended on its own; it is started again."""

    service: Service
    """Which."""
    how: str
    """How it ended, as supervisord puts it, for instance `exit status 1` or `terminated by SIGKILL`."""
    log_tail: str
    """The last lines that it printed."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A service died too often, or cannot be started at all; it is left alone."""

    service: Service
    """Which."""
    reason: str
    """Why it could not be started; empty when it died."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A service is not ready for longer than usual; BentoML's own supervisor may be restarting its worker."""

    service: Service
    """Which."""
    log_tail: str
    """The last lines that it printed."""


Event = Ready | Died | GivenUp | Slow


class Stack:
    """Services under supervision, for as long as the context lasts.

        async with Stack(services, folder, directory=project) as stack:
            async for event in stack.events(): ...

    Args:
        services: What to run, in the order in which they start.
        folder: Where state and logs go; made if it is not there. One stack at a time.
        directory: The folder in which services start.
        grace_s: Seconds that each service has to stop, when the context ends, before it is killed.
        start_retries: How often a service that dies at once is started again; before try n it waits n seconds.
        patience_s: Time after which a service that is not ready is worth a word, in seconds.
    """

    def __init__(
        self,
        services: Sequence[Service],
        folder: Path,
        *,
        directory: Path,
        grace_s: int = 40,
        start_retries: int = 8,
        patience_s: float = 30.0,
    ) -> None:
        self._services = {service.name: service for service in services}
        self._folder = folder.resolve()
        self._marker = secrets.token_hex(8)
        self._grace_s = grace_s
        self._patience_s = patience_s
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
        """Names of the services that are not ready yet, or not again."""
        return tuple(self._waiting)

    def log(self, name: str) -> Path:
        """The file with what the service `name` prints."""
        return self._supervisord.log(name)

    async def events(self) -> AsyncGenerator[Event, None]:
        """What happens to the services, as it happens; has no end of its own.

        Raises:
            StackError: supervisord itself is gone.
        """
        while True:
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            yield event

    async def until_ready(self) -> AsyncGenerator[Event, None]:
        """What happens until every service is ready.

        Raises:
            StackError: A service is given up.
        """
        async with contextlib.aclosing(self.events()) as events:
            async for event in events:
                yield event
                if isinstance(event, GivenUp):
                    raise StackError(f"{event.service.name} does not start; its log is {self.log(event.service.name)}")
                if not self._waiting:
                    return

    async def stop(self) -> None:
        """Stops every service, the last one first, and ends whatever they left behind."""
        for task in self._tasks:
            task.cancel()
        try:
            self._supervisord.ask_to_stop()
            await asyncio.to_thread(self._supervisord.wait, self._grace_s * len(self._services) + 5)
        finally:
            # Also when the wait is cancelled: a second Ctrl-C asks for just that.
            self._supervisord.kill()
            kill_orphans(self._marker)
            if self._lock is not None:
                self._lock.close()

    def _take_lock(self) -> None:
        """Makes this the only stack of the folder, and ends what an earlier one could not.

        The kernel gives the lock back when its holder ends, however that comes about.
        """
        self._lock = (self._folder / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StackError(
                f"a stack is running from {self._folder}: stop it, or choose another folder with --state"
            ) from error
        self._lock.seek(0)
        if earlier := self._lock.read().strip():
            kill_orphans(earlier)
        self._lock.truncate(0)
        self._lock.write(self._marker)
        self._lock.flush()

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` beside the stack; should it fail, whoever reads the events hears of it."""

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
        raise StackError(f"supervisord ended on its own; see supervisord.log in {self._folder}")

    async def _on_death(self, process: Process) -> None:
        how = self._supervisord.how_it_ended(process.name)
        self._events.put_nowait(Died(self._services[process.name], how, log_tail(self.log(process.name))))
        self._waiting[process.name] = time.monotonic()
        # Workers that the dead process left would hold its port; those of its successor are below supervisord.
        marker, alive = f"{self._marker}/{process.name}", self._supervisord.pid
        await asyncio.to_thread(kill_orphans, marker, except_below=alive)

    async def _watch_readiness(self, service: Service) -> None:
        told = None
        while True:
            since = self._waiting.get(service.name)
            ready = since is not None and await service.ready()
            # A death in the meantime makes the answer one about the past.
            if since is not None and self._waiting.get(service.name) == since:
                waited = time.monotonic() - since
                if ready:
                    del self._waiting[service.name]
                    self._events.put_nowait(Ready(service, waited))
                elif waited > self._patience_s and told != since:
                    told = since
                    self._events.put_nowait(Slow(service, log_tail(self.log(service.name))))
            await asyncio.sleep(ASK_READY_S)
