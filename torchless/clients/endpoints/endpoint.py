"""One endpoint: its channel, what is known of it, and its calls in flight."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Generic, TypeVar

import grpc

from torchless.clients.endpoint_state import BreakerState, EndpointState, Health
from torchless.clients.endpoints.breaker import Breaker, Ticket
from torchless.clients.endpoints.channel import open_channel
from torchless.clients.endpoints.health import HealthWatch, is_this_task_cancelled
from torchless.clients.metrics import EndpointMetrics
from torchless.clients.settings import ClientSettings
from torchless.clients.translate import translate, unreachable
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)

Stub = TypeVar("Stub")
_LATENCY_MEMORY_S = 2.0
_SMOOTHING = 0.1
_SHORTEST_S = 1e-6
_FAILED_LATENCY_S = 1000.0
"""Latency that a failure of the endpoint counts as, in seconds. An endpoint that fails at once would otherwise look
quick and idle, and attract all calls. It outweighs any number of calls in flight elsewhere; a good answer resets it."""
_LEAST_WEIGHT = 0.1
_LONGEST_CALL_S = 3600.0
"""The longest deadline that settings allow, in seconds."""


class Endpoint(Generic[Stub]):
    """An endpoint of a service. Create it inside the running event loop.

    Args:
        address: Its address.
        capability: Name of the capability, for logs.
        service_name: Full name of its gRPC service.
        make_stub: Makes the typed stub over a channel.
        settings: How it is called.
        metrics: Where its state is shown.
        clock: Monotonic time, in seconds.
    """

    def __init__(
        self,
        address: str,
        *,
        capability: str,
        service_name: str,
        make_stub: Callable[[grpc.aio.Channel], Stub],
        settings: ClientSettings,
        metrics: EndpointMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.calls_in_flight = 0
        """Its calls in flight."""
        self.is_leaving = False
        """Whether it is being closed: it finishes its calls, and gets no new ones."""
        self.health_changes = 0
        """How often its health changed. A service that is restarted is unhealthy or unreachable in between."""
        self._capability = capability
        self._metrics = metrics
        self._clock = clock
        self._slow_start_s = settings.slow_start_s
        self._up_since = -math.inf
        self._log_latency: float | None = None
        self._answers = 0
        self._begun: dict[Ticket, float] = {}
        self._latency_seen = clock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._streams: set[grpc.aio.Call] = set()
        self._is_cutting = False
        self._channel = open_channel(settings, address)
        self.stub = make_stub(self._channel)
        self.breaker = Breaker(settings.breaker, self._breaker_changed, clock)
        self.watch = HealthWatch(self._channel, service_name, settings.endpoint_health, self._health_changed)
        self._watching: asyncio.Task[None] | None = None

    @property
    def health(self) -> Health:
        """The health that it reports."""
        return self.watch.state

    @property
    def is_available(self) -> bool:
        """Whether it is healthy and its breaker is closed, as far as is known."""
        return self.watch.state is Health.SERVING and self.breaker.state is BreakerState.CLOSED

    def state(self) -> EndpointState:
        """Its current state."""
        breaker = self.breaker
        return EndpointState(
            self.address, self.health, breaker.state, breaker.trips, breaker.next_probe_s, self.calls_in_flight
        )

    def start(self) -> None:
        """Starts to follow its health; a second call does nothing."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self.watch.run())

    def reconfigure(self, settings: ClientSettings) -> None:
        """Applies other settings from now on. Those of the `connection` group apply to new endpoints only."""
        self._slow_start_s = settings.slow_start_s
        self.breaker.reconfigure(settings.breaker)
        self._metrics.breaker(self.breaker.state, self.breaker.next_probe_s)
        self.watch.settings = settings.endpoint_health

    async def leave(self, streams_s: float) -> None:
        """Closes it once its calls have ended: streams within `streams_s` seconds, others by their own deadlines."""
        await self._stop_watching()
        await self._wait_idle(streams_s)
        self._cut_streams()
        await self._wait_idle(_LONGEST_CALL_S)
        await self.close()

    async def close(self) -> None:
        """Ends its calls with UNREACHABLE. May be called again, and while it is leaving."""
        await self._stop_watching()
        # gRPC cancels awaited calls by itself, but not streams.
        self._cut_streams()
        await self._channel.close()
        self._metrics.gone()

    async def _stop_watching(self) -> None:
        self.is_leaving = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def _wait_idle(self, timeout_s: float) -> None:
        """Returns once it has no calls, or after `timeout_s` seconds."""
        # Not asyncio.wait_for: on 3.11 it loses a cancellation that arrives as the event is set.
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()

    def _cut_streams(self) -> None:
        self._is_cutting = True
        for stream in list(self._streams):
            stream.cancel()

    @property
    def load(self) -> float:
        """Its calls in flight including the next one, relative to its weight during slow start."""
        return (self.calls_in_flight + 1) / self._weight()

    @property
    def latency_s(self) -> float | None:
        """How long its recent answers took, or its oldest call takes already, in seconds; None: not known.

        The memory fades within seconds, so that an endpoint that was slow once, or at its first call, is tried again.
        """
        waited = [self._clock() - next(iter(self._begun.values()))] if self._begun else []
        if self._log_latency is not None:
            waited.append(math.exp(self._faded(self._log_latency)))
        return max(waited, default=None)

    def call(self, ticket: Ticket, *, timed: bool = True) -> _EndpointCall:
        """A `with` block around one call to it, which raises `TorchlessError` for errors of gRPC.

        Args:
            ticket: The breaker's permission; the block ends it.
            timed: Whether the endpoint's latency is learned from the call.
        """
        return _EndpointCall(self, ticket, timed)

    @contextmanager
    def stream(self, call: grpc.aio.Call) -> Iterator[None]:
        """Around reading the answers of `call`, within `call()`; `call` is cancelled at the end, and on `close`."""
        self._streams.add(call)
        try:
            yield
        finally:
            self._streams.discard(call)
            call.cancel()  # the service must not compute for a caller that leaves early

    def _begin(self, ticket: Ticket, *, timed: bool) -> float:
        self.calls_in_flight += 1
        self._idle.clear()
        self._metrics.in_flight.inc()
        now = self._clock()
        if timed:
            self._begun[ticket] = now
        return now

    def _end(self, ticket: Ticket) -> None:
        self.calls_in_flight -= 1
        self._begun.pop(ticket, None)
        self._metrics.in_flight.dec()
        if not self.calls_in_flight:
            self._idle.set()

    def _answered(self, ticket: Ticket, started: float, *, timed: bool) -> None:
        self._metrics.outcomes[None].inc()
        ticket.answered()
        if timed:
            self._learn(self._clock() - started)

    def _failed(self, error: TorchlessError, ticket: Ticket, *, timed: bool) -> None:
        self._metrics.outcomes[error.kind].inc()
        ticket.failed(error)
        if error.kind is ErrorKind.DEADLINE and not self.is_leaving:
            self.watch.suspect()
        if timed and error.kind.policy.endpoint_fault:
            self._learn(_FAILED_LATENCY_S)

    def _cancelled(self, ticket: Ticket) -> TorchlessError | None:
        """The error of a call that ended with CancelledError; None: its caller was cancelled."""
        ticket.discard()
        if not self._is_cutting or is_this_task_cancelled():
            return None
        # gRPC reports a call that was cut in this way; the caller was not cancelled.
        self._metrics.outcomes[ErrorKind.UNREACHABLE].inc()
        return unreachable(self._capability)

    def _translate(self, error: BaseException | None) -> TorchlessError | None:
        """The error of ours that gRPC's `error` stands for; None: it is none of gRPC's."""
        if isinstance(error, grpc.aio.AioRpcError):
            return translate(error, self._capability)
        # The channel is closed: this process shuts down, or the endpoint is gone from the settings.
        return unreachable(self._capability) if isinstance(error, grpc.aio.UsageError) else None

    def _learn(self, latency_s: float) -> None:
        # Logarithms, so that one large request among small ones does not make the endpoint look slow.
        latest = math.log(max(latency_s, _SHORTEST_S))
        self._answers += 1
        if self._log_latency is None:
            self._log_latency = latest
        else:
            # A slow answer counts at once. A quick answer starts from what has faded meanwhile.
            before = min(self._log_latency, max(latest, self._faded(self._log_latency)))
            self._log_latency = before + max(_SMOOTHING, 1 / self._answers) * (latest - before)
        self._latency_seen = self._clock()

    def _faded(self, log_latency: float) -> float:
        return log_latency - (self._clock() - self._latency_seen) / _LATENCY_MEMORY_S

    def _weight(self) -> float:
        if not self._slow_start_s:
            return 1.0
        return min(1.0, max(_LEAST_WEIGHT, (self._clock() - self._up_since) / self._slow_start_s))

    def _health_changed(self, health: Health) -> None:
        self.health_changes += 1
        if health is Health.SERVING:
            self._up_since = self._clock()
            # It may have been restarted, so earlier latencies say nothing about it.
            self._log_latency, self._answers = None, 0
        if health is not Health.UNREACHABLE:
            # Earlier failures say nothing either, and its own error says more than that its breaker is open.
            self.breaker.allow_probe()
            self._metrics.breaker(self.breaker.state, self.breaker.next_probe_s)
        log = logger.info if health is Health.SERVING else logger.warning
        log("%s endpoint %s is %s", self._capability, self.address, health.value)
        self._metrics.health(serving=health is Health.SERVING)

    def _breaker_changed(self, state: BreakerState) -> None:
        if state is BreakerState.CLOSED:
            self._up_since = self._clock()
        log = logger.warning if state is BreakerState.OPEN else logger.info
        log("%s endpoint %s: circuit breaker is %s", self._capability, self.address, state.value)
        self._metrics.breaker(state, self.breaker.next_probe_s)
        if state is BreakerState.OPEN:
            self._metrics.tripped()


class _EndpointCall:
    """Counts one call, and learns from its end. A class, because a generator costs every call a microsecond more."""

    __slots__ = ("_endpoint", "_started", "_ticket", "_timed")

    def __init__(self, endpoint: Endpoint[Stub], ticket: Ticket, timed: bool) -> None:
        self._endpoint = endpoint
        self._ticket = ticket
        self._timed = timed
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = self._endpoint._begin(self._ticket, timed=self._timed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        endpoint, ticket = self._endpoint, self._ticket
        ours: TorchlessError | None = None
        try:
            if error is None:
                endpoint._answered(ticket, self._started, timed=self._timed)
            elif isinstance(error, TorchlessError):
                endpoint._failed(error, ticket, timed=self._timed)
            elif isinstance(error, asyncio.CancelledError):
                ours = endpoint._cancelled(ticket)
                if ours is not None:
                    raise ours from None
            elif (ours := endpoint._translate(error)) is not None:
                endpoint._failed(ours, ticket, timed=self._timed)
                raise ours from error
            else:
                ticket.discard()
        finally:
            ours = None  # its traceback holds this frame: a cycle, which only the garbage collector would undo
            endpoint._end(ticket)
