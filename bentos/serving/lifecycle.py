"""The lifecycle of a serving process: load, serve, drain on SIGTERM, exit. BentoML itself does not drain.

A process that cannot serve exits: with `EXIT_CONFIGURATION` if only a change helps, with `EXIT_TEMPORARY` if another
start may. docs/starting.md has the cases.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from bentos.serving.capability import Capability
from bentos.serving.readiness import Readiness
from bentos.serving.settings import ServingSettings
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.process import EXIT_CONFIGURATION, EXIT_TEMPORARY

logger = logging.getLogger(__name__)

_STOP_S = 5.0
"""Time for the capability to stop after a failure, in seconds: the device's thread may hang."""


class Lifecycle:
    """Starts and stops one capability together with BentoML's server.

    Args:
        full_name: The gRPC service's full name, for the log.
        capability: The capability to start and stop.
        readiness: Is set when the service becomes ready, fails, drains or shuts down.
        settings: Drain times.
    """

    def __init__(self, full_name: str, capability: Capability, readiness: Readiness, settings: ServingSettings) -> None:
        self._full_name = full_name
        self._capability = capability
        self._readiness = readiness
        self._settings = settings
        self._server: Any = None
        self._starting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._exit_status = 0

    def attach(self, server: Any) -> None:
        """Takes control of BentoML's gRPC server before it opens its port; called on its event loop."""
        self._server = server
        server.wait_for_termination = self._until_stopped(server.wait_for_termination)
        self._starting = self._spawn(self._start())
        self._spawn(self._exit_after_failure())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    async def _start(self) -> None:
        try:
            await self._capability.start(self._readiness.loading)
            self._readiness.become_ready()
            logger.info("%s is ready; gRPC on %s", self._full_name, self._server.bind_address)
        except TorchlessError as error:
            self._fail(error, EXIT_TEMPORARY if error.kind.policy.transient else EXIT_CONFIGURATION)
        except Exception as error:
            logger.debug("the start failed", exc_info=error)
            failure = TorchlessError(ErrorKind.INTERNAL, "the service could not start; see its log")
            failure.add_note(f"{type(error).__name__}: {error}")
            self._fail(failure, EXIT_CONFIGURATION)

    def _fail(self, error: TorchlessError, exit_status: int) -> None:
        self._exit_status = exit_status
        detail = "".join(f" ({' '.join(note.split())})" for note in getattr(error, "__notes__", ()))
        logger.error(
            "%s cannot serve: %s%s; exits with status %d in %g s",
            self._full_name,
            error.message,
            detail,
            exit_status,
            self._settings.failure_exit_s,
        )
        self._readiness.fail(error)

    async def _exit_after_failure(self) -> None:
        await self._readiness.until(lambda: self._readiness.failure is not None)
        failure = self._readiness.failure
        if failure is not None and not self._exit_status:  # a call found that the device is lost
            self._fail(failure, EXIT_TEMPORARY)
        await asyncio.sleep(self._settings.failure_exit_s)
        self._readiness.leave()
        await self._server.stop(0)

    def _on_signal(self) -> None:
        if not any(task.get_name() == "drain" for task in self._tasks):
            self._spawn(self._drain(), name="drain")

    async def _drain(self) -> None:
        self._readiness.drain()
        await asyncio.sleep(self._settings.drain_delay_s)
        self._readiness.leave()
        # Refuses new calls at once; returns when the calls in flight are done or the grace period is over.
        await self._server.stop(self._settings.drain_grace_s)

    def _until_stopped(self, terminated: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[None]]:
        # BentoML exits as soon as the server has terminated; its own shutdown hooks never run.
        async def wait() -> None:
            await terminated()
            if self._starting is not None and not self._starting.done():
                self._starting.cancel()
                await asyncio.wait({self._starting}, timeout=_STOP_S)
                # The thread that loads the model cannot be stopped, and Python would wait for it.
                _exit(self._exit_status)
            if self._exit_status:
                with suppress(Exception):
                    async with asyncio.timeout(_STOP_S):
                        await self._capability.stop()
                _exit(self._exit_status)
            await self._capability.stop()

        return wait

    def _spawn(self, work: Any, name: str | None = None) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _exit(status: int) -> None:
    """Ends the process without waiting for its threads."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
