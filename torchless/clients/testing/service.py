"""A gRPC service in this process, whose behaviour a test controls."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_status import rpc_status

from torchless.clients.sync import background
from torchless.clients.timings import NO_TIMINGS
from torchless.contracts.errors import TorchlessError
from torchless.contracts.grpc_status import to_status

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.max_send_message_length", 64 * 2**20),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients ping idle channels
    ("grpc.so_reuseport", 0),
]


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request, or a frame of a stream."""

    message: Any
    """The message, for instance a `GenerateEmbeddingsRequest`."""
    metadata: Mapping[str, str]
    """The call's gRPC metadata, for instance `x-tenant-id`."""
    deadline_s: float | None
    """Seconds that the caller waits from the arrival; None: no deadline."""


class _Health(health_aio.HealthServicer):
    """Health checks that take `latency_s` seconds."""

    latency_s = 0.0

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        await asyncio.sleep(self.latency_s)
        return await super().Check(request, context)


class InProcessService:
    """Base of the services: the server, its health, and what tests control and see.

    `async with` runs it in the current event loop, `with` in the background loop of the blocking clients. Attributes
    may be set at any time, from any thread.

    Args:
        port: Port of 127.0.0.1; 0: a free one. Kept when the service is stopped and started again.
    """

    service_name: ClassVar[str]
    """The gRPC service's full name, under which it reports its health."""
    add_to_server: ClassVar[Callable[..., None]]
    """Adds the servicer to a server."""

    def __init__(self, *, port: int = 0) -> None:
        self.port = port
        self.in_flight = 0
        """Calls and streams being answered now."""
        self._health = _Health()
        self._latency_changed = asyncio.Event()
        self._server: grpc.aio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.reset()

    def reset(self) -> None:
        """Restores the behaviour of a new service and forgets all requests."""
        self.latency_s = 0.0
        self.error: TorchlessError | None = None
        """Error of every request; None: requests are answered."""
        self.requests: list[ReceivedRequest] = []
        """Requests and frames of streams, in the order of their arrival."""
        self.timings = NO_TIMINGS
        """Timings in the responses of services that report them."""
        self.cancelled = 0
        """Calls and streams that their caller cancelled, or that ran out of time."""
        self._next_errors: deque[TorchlessError] = deque()
        self.serving = True
        self.health_latency_s = 0.0

    @property
    def address(self) -> str:
        """The address for a client, `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def latency_s(self) -> float:
        """Time before each answer, in seconds; a change also applies to requests that wait already."""
        return self._latency_s

    @latency_s.setter
    def latency_s(self, seconds: float) -> None:
        self._latency_s = seconds
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    @property
    def serving(self) -> bool:
        """The reported health: SERVING or NOT_SERVING."""
        return self._serving

    @serving.setter
    def serving(self, serving: bool) -> None:
        self._serving = serving
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._report_health(), self._loop)

    @property
    def health_latency_s(self) -> float:
        """Time before the answer to a health check, in seconds."""
        return self._health.latency_s

    @health_latency_s.setter
    def health_latency_s(self, seconds: float) -> None:
        self._health.latency_s = seconds

    @property
    def messages(self) -> list[Any]:
        """The messages of `requests`."""
        return [request.message for request in self.requests]

    def fail_next(self, error: TorchlessError, times: int = 1) -> None:
        """Answers the next `times` requests with `error`."""
        self._next_errors.extend([error] * times)

    async def start(self) -> None:
        """Listens."""
        self._loop = asyncio.get_running_loop()
        self._server = grpc.aio.server(options=_OPTIONS)
        type(self).add_to_server(self, self._server)
        await self._report_health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self, grace_s: float | None = None) -> None:
        """Stops listening; calls in flight have `grace_s` seconds to end. `start` listens on the same port again."""
        if self._server is not None:
            server, self._server, self._loop = self._server, None, None
            await server.stop(grace_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        loop = background.current()

        async def start() -> None:
            await self.start()
            loop.at_exit.add(self.stop)  # a process with a running server would not end

        loop.run(start())
        return self

    def __exit__(self, *raised: object) -> None:
        loop = background.current()

        async def stop() -> None:
            loop.at_exit.discard(self.stop)
            await self.stop()

        loop.run(stop())

    async def _report_health(self) -> None:
        status = health_pb2.HealthCheckResponse
        for name in ("", self.service_name):
            await self._health.set(name, status.SERVING if self._serving else status.NOT_SERVING)

    async def _unary(self, request: Request, context: Context, answer: Callable[[Request], Response]) -> Response:
        """The answer to a request, after the latency and unless an error is due."""
        async with self._call(context):
            await self._receive(request, context)
            return answer(request)

    @asynccontextmanager
    async def _call(self, context: Context) -> AsyncIterator[None]:
        """Counts a call or stream, and ends it with the status of the error that its work raises."""
        self.in_flight += 1
        try:
            yield
        except TorchlessError as error:
            await context.abort_with_status(rpc_status.to_status(to_status(error)))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    async def _wait(self) -> None:
        arrived = time.monotonic()
        while (remaining_s := arrived + self.latency_s - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(remaining_s):
                    await self._latency_changed.wait()

    def _wake(self) -> None:
        self._latency_changed.set()
        self._latency_changed = asyncio.Event()

    async def _receive(self, message: Message, context: Context) -> None:
        """Records a message, waits for the latency, and raises the error that is due."""
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.requests.append(ReceivedRequest(message, metadata, context.time_remaining()))
        await self._wait()
        error = self._next_errors.popleft() if self._next_errors else self.error
        if error is not None:
            raise error.copy()
