"""The lifecycle of a serving process: load, serve, drain on SIGTERM, exit. BentoML itself does not drain."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from bentos.serving.capability import Capability
from bentos.serving.readiness import Readiness
from bentos.serving.settings import ServingSettings
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.process import leave_with_parent

logger = logging.getLogger(__name__)


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
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(self, server: Any) -> None:
        """Takes control of BentoML's gRPC server before it opens its port; called on its event loop."""
        self._server = server
        server.wait_for_termination = self._until_stopped(server.wait_for_termination)
        self._spawn(self._start())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        leave_with_parent()

    async def _start(self) -> None:
        try:
            await self._capability.start()
            self._readiness.become_ready()
            logger.info("%s is ready", self._full_name)
        except TorchlessError as error:
            logger.error("not serving: %s", error.message)
            self._readiness.fail(error)
        except Exception:
            logger.exception("not serving: the model could not be loaded")
            self._readiness.fail(
                TorchlessError(ErrorKind.UNREACHABLE, "the service could not load its model; see its log")
            )

    def _on_signal(self) -> None:
        if not self._tasks or not any(task.get_name() == "drain" for task in self._tasks):
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
            await self._capability.stop()

        return wait

    def _spawn(self, work: Any, name: str | None = None) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
