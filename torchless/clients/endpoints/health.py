"""Health checks of one endpoint (grpc.health.v1): Watch, or Check where the service does not implement Watch.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from torchless.clients.endpoint_state import Health
from torchless.clients.settings import EndpointHealthSettings
from torchless.contracts.errors import TorchlessError
from torchless.contracts.grpc_status import HEALTH_REASON, from_status

_FIRST_PAUSE_S = 0.05
_STEADY_S = 1.0


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What an endpoint answers to one health check."""

    health: Health
    """Its health."""
    reason: TorchlessError | None = None
    """Why it is not SERVING, if it says so."""


class HealthWatch:
    """Follows the health of one service at one endpoint.

    Args:
        channel: The channel to the endpoint.
        service_name: Full name of the gRPC service.
        settings: Intervals and timeouts.
        on_change: Called with the new state on each change.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        service_name: str,
        settings: EndpointHealthSettings,
        on_change: Callable[[Health], None],
    ) -> None:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        self._stub = stub
        self._request = health_pb2.HealthCheckRequest(service=service_name)
        self.settings = settings
        self._on_change = on_change
        self._stream: Any = None
        self._checking: asyncio.Task[None] | None = None
        self._responses = 0
        self.state = Health.UNKNOWN
        """The current health."""

    async def run(self) -> None:
        """Follows the health until cancelled."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                if self.state is not Health.UNREACHABLE:
                    self.suspect()  # Watch waits for a connection, and so does not report a missing endpoint
                began = time.monotonic()
                heard = await self._watch()
                # An endpoint that answers and closes the stream repeatedly is not called faster and faster.
                lasted = heard and time.monotonic() - began > _STEADY_S
                pause_s = _FIRST_PAUSE_S if lasted else min(2 * pause_s, self.settings.interval_s)
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311  # only spreads them
        finally:
            if self._checking is not None:
                self._checking.cancel()

    def suspect(self) -> None:
        """Checks whether the endpoint answers at all: nothing is known yet, or a call missed its deadline."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.get_running_loop().create_task(self._check_reachable())

    async def report(self, timeout_s: float | None) -> HealthReport:
        """Asks the endpoint for its health, within `timeout_s` seconds; does not change `state`."""
        try:
            call = self._stub.Check(self._request, timeout=timeout_s)
            health = _state_of((await call).status)
            return HealthReport(health, None if health is Health.SERVING else _reason(await call.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return HealthReport(Health.SERVING)  # it answers, but has no health service
            is_up = error.code() is grpc.StatusCode.NOT_FOUND
            return HealthReport(Health.NOT_SERVING if is_up else Health.UNREACHABLE)
        except grpc.aio.UsageError:  # the channel is closed
            return HealthReport(Health.UNREACHABLE)
        except asyncio.CancelledError:
            if is_this_task_cancelled():
                raise
            return HealthReport(Health.UNREACHABLE)  # the channel was closed meanwhile

    async def _watch(self) -> bool:
        """Follows one Watch stream to its end; its last state stays after a normal end.

        Returns:
            Whether the endpoint reported its state at least once.
        """
        heard = False
        # Without a connection it waits for one; the channel connects again after its own pauses.
        self._stream = self._stub.Watch(self._request, wait_for_ready=True)
        try:
            async for response in self._stream:
                heard = True
                self._responses += 1
                self._become(_state_of(response.status))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                await self._poll()
            self._become(Health.UNREACHABLE)
        except asyncio.CancelledError:
            if is_this_task_cancelled():
                raise
            # `_check_reachable` cancelled only the stream.
        finally:
            self._stream.cancel()
        return heard

    async def _poll(self) -> None:
        while True:
            self._become((await self.report(self.settings.timeout_s)).health)
            await asyncio.sleep(self.settings.interval_s)

    async def _check_reachable(self) -> None:
        responses = self._responses
        unreachable = (await self.report(self.settings.timeout_s)).health is Health.UNREACHABLE
        if unreachable and responses == self._responses and self._stream is not None:
            # A new stream gets an answer as soon as the endpoint is back.
            self._stream.cancel()
            self._become(Health.UNREACHABLE)

    def _become(self, state: Health) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)


def is_this_task_cancelled() -> bool:
    """Whether the running task itself was cancelled; gRPC raises `CancelledError` also for calls that others cancel."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _reason(trailer: Any) -> TorchlessError | None:
    """The reason in the trailing metadata of a health check; None: there is none that can be read."""
    for key, value in trailer or ():
        if key == HEALTH_REASON:
            with suppress(DecodeError):
                return from_status(Status.FromString(value))
    return None


def _state_of(status: int) -> Health:
    serving = status == health_pb2.HealthCheckResponse.SERVING
    return Health.SERVING if serving else Health.NOT_SERVING
