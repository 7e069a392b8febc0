"""The stack on one machine: starts the services, watches them, and leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torchless.cli.errors import StackError
from torchless.cli.events import Died, Event, GivenUp, Ready, Slow, StartFailed, WorkerEnded, logged, reason_in
from torchless.cli.log_tail import LogFollower, append_error, last_error, log_tail
from torchless.cli.orphans import kill_orphans
from torchless.cli.ports import check_ports
from torchless.cli.services import Service
from torchless.cli.state import StackState, StateLock, read_state
from torchless.cli.supervisord import Process, State, Supervisord
from torchless.process import EXIT_CONFIGURATION

POLL_S = 0.5
"""Interval between polls of supervisord, in seconds."""
READY_POLL_S = 0.5
"""Interval between readiness checks of a service, in seconds."""


class Stack:
    """Runs services under supervision while the context lasts.

        async with Stack(services, folder, directory=project) as stack:
            async for event in stack.events(): ...

    Args:
        services: The services, in the order in which they start.
        folder: Folder for state, of one stack at a time. Created if it does not exist.
        logs: Folder for the logs; None: `logs` in the state folder. Created if it does not exist.
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
        logs: Path | None = None,
        grace_s: int = 40,
        start_retries: int = 8,
        slow_after_s: float = 30.0,
    ) -> None:
        self._services = {service.name: service for service in services}
        self._folder = folder.resolve()
        self._marker = secrets.token_hex(8)
        self._grace_s = grace_s
        self._slow_after_s = slow_after_s
        self._logs = logs.resolve() if logs is not None else self._folder / "logs"
        self._lock: StateLock | None = None
        self._started: set[str] = set()
        self._given_up: set[str] = set()
        self._seen: dict[str, Process] = {}
        self._waiting: dict[str, float] = {}
        self._events: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._supervisord = Supervisord(
            services,
            self._folder,
            self._logs,
            directory=directory,
            marker=self._marker,
            grace_s=grace_s,
            start_retries=start_retries,
        )

    async def __aenter__(self) -> Self:
        _make(self._folder)
        _make(self._logs)
        self._take_lock()
        try:
            check_ports([port for service in self._services.values() for port in service.ports])
            self._waiting = dict.fromkeys(self._services, time.monotonic())
            await self._supervisord.start()
            self._watch(self._watch_processes())
            self._watch(self._watch_logs())
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

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self._logs

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
            StackError: A service cannot start; the message says why in one line.
        """
        async with contextlib.aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, StartFailed):
                    name = event.service.name
                    raise StackError(f"{name} does not start: {event.reason}\nits log: {self.log(name)}")
                yield event
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
                self._lock.release()

    def _take_lock(self) -> None:
        """Locks the folder, and kills the orphans of an earlier stack."""
        self._lock = StateLock(self._folder)
        if earlier := read_state(self._folder):
            kill_orphans(earlier.marker)
        self._lock.write(StackState.of_this_process(self._marker, self._logs, tuple(self._services)))

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
                    await self._give_up(process.name, self._why_fatal(process))
            await asyncio.sleep(POLL_S)
        raise StackError(f"supervisord ended unexpectedly; see supervisord.log in {self._folder}")

    async def _on_death(self, process: Process) -> None:
        name, log = process.name, self.log(process.name)
        if name in self._given_up:
            return
        how = self._supervisord.how_it_ended(name)
        if "SIGKILL" in how:
            # A killed process had no time to say why.
            append_error(log, name, f"the process ended: {how}")
            reason = how
        else:
            reason = reason_in(last_error(log)) or how
        self._waiting[name] = time.monotonic()
        if how == f"exit status {EXIT_CONFIGURATION}":
            await self._give_up(name, reason)
        elif name in self._started:
            self._events.put_nowait(Died(self._services[name], how, log_tail(log)))
        else:
            self._events.put_nowait(StartFailed(self._services[name], reason))
        # Orphaned workers would hold the port; the workers of the new process are below supervisord.
        marker, alive = f"{self._marker}/{name}", self._supervisord.pid
        await asyncio.to_thread(kill_orphans, marker, except_below=alive)

    def _why_fatal(self, process: Process) -> str:
        said = reason_in(last_error(self.log(process.name)))
        return f"it ended too often: {said}" if said else process.spawn_error

    async def _give_up(self, name: str, reason: str) -> None:
        self._given_up.add(name)
        kind = GivenUp if name in self._started else StartFailed
        self._events.put_nowait(kind(self._services[name], reason))
        await asyncio.to_thread(self._supervisord.give_up, name)

    async def _watch_logs(self) -> None:
        """Reports what services write to their logs and show nowhere else."""
        followers = {name: LogFollower(self.log(name)) for name in self._services}
        while True:
            for name, follower in followers.items():
                for line in await asyncio.to_thread(follower.lines):
                    event = logged(line, self._services[name], was_ready=name in self._started)
                    if isinstance(event, WorkerEnded):
                        self._waiting[name] = time.monotonic()
                    if event is not None:
                        self._events.put_nowait(event)
            await asyncio.sleep(POLL_S)

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
                    self._started.add(service.name)
                    self._events.put_nowait(Ready(service, waited))
                elif waited > self._slow_after_s and reported != since:
                    reported = since
                    self._events.put_nowait(Slow(service, log_tail(self.log(service.name))))
            await asyncio.sleep(READY_POLL_S)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(f"the folder {folder} cannot be made: {error.strerror}") from error
