"""What the stand-ins for services share: what tests see and provoke, and a real gRPC server with health."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_status import rpc_status

from tests.integration.gateway.loop_thread import LoopThread
from tests.waiting import until
from torchless.contracts.errors import TorchlessError
from torchless.contracts.grpc_status import to_status


class Calls:
    """Base of servicers.

    Set `failure` to refuse every call with it, `delay_s` to make calls wait, until `released` is set. `begun` is set
    once a call waits, `cancelled` once one was cancelled while it waited.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.failure: TorchlessError | None = None
        self.delay_s = 0.0
        self.begun = threading.Event()
        self.released = threading.Event()
        self.cancelled = threading.Event()
        self.metadata: dict[str, str] = {}
        self.deadline_s: float | None = None
        self.requests: list[Any] = []

    @asynccontextmanager
    async def _call(self, request: Any, context: Any) -> AsyncIterator[None]:
        self.metadata = dict(context.invocation_metadata())
        self.deadline_s = context.time_remaining()
        self.requests.append(request)
        try:
            if self.delay_s:
                self.begun.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.delay_s):
                        await until(self.released.is_set, within_s=2 * self.delay_s)
            if self.failure is not None:
                raise self.failure
            yield
        except TorchlessError as error:
            await context.abort_with_status(rpc_status.to_status(to_status(error)))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class _Health(health_aio.HealthServicer):
    """Answers each check after `delay_s`."""

    delay_s = 0.0

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        await asyncio.sleep(self.delay_s)
        return await super().Check(request, context)


S = TypeVar("S", bound=Calls)


class StandIn(Generic[S]):
    """A servicer on a port of its own.

    `address` is where it listens; `servicer` is what tests set and look at.
    """

    def __init__(self, loop: LoopThread, servicer: S, add: Callable[..., None], service_name: str) -> None:
        self.servicer = servicer
        self.address = ""
        self._loop = loop
        self._add = add
        self._service_name = service_name

    def __enter__(self) -> Self:
        self._loop.run(self._start())
        return self

    def __exit__(self, *raised: object) -> None:
        self._loop.run(self._server.stop(0))

    def reset(self) -> None:
        """Undoes what a test has set."""
        self.servicer.reset()
        self.set_serving(True)
        self.delay_health(0)

    def delay_health(self, seconds: float) -> None:
        self._health.delay_s = seconds

    def set_serving(self, serving: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._loop.run(self._health.set(self._service_name, state))

    async def _start(self) -> None:
        options = [("grpc.max_receive_message_length", 64 * 2**20), ("grpc.max_send_message_length", 64 * 2**20)]
        # As our services: clients watch their health over idle channels, and ping.
        options.append(("grpc.http2.min_ping_interval_without_data_ms", 5_000))
        self._server = grpc.aio.server(options=options)
        self._add(self.servicer, self._server)
        self._health = _Health()
        await self._health.set(self._service_name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
