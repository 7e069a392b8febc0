"""One endpoint: its channel, what is known of it, and the calls that it has now."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import grpc

from torchless.clients.endpoint_state import BreakerState, EndpointState, Health
from torchless.clients.endpoints.breaker import Breaker, Ticket
from torchless.clients.endpoints.channel import open_channel
from torchless.clients.endpoints.health import HealthWatch, is_this_task_cancelled
from torchless.clients.metrics import EndpointMetrics
from torchless.clients.settings import ClientSettings
from torchless.clients.translate import unreachable
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)

Stub = TypeVar("Stub")
_LATENCY_MEMORY_S = 2.0
_SMOOTHING = 0.1
_SHORTEST_S = 1e-6
_FAULTS = {ErrorKind.INTERNAL, ErrorKind.GPU_UNAVAILABLE, ErrorKind.UNREACHABLE}
_FAULT_S = 1000.0
"""A fault of its own counts as an answer that takes so long, in seconds: what fails at once would otherwise be the
least busy and the quickest, and draw the calls of all the others. It is more than what the others' calls in flight take
all together, however busy they are; a good answer makes it forgotten."""
_LEAST_WEIGHT = 0.1
_LONGEST_CALL_S = 3600.0
"""The longest deadline that settings allow, in seconds."""


class Endpoint(Generic[Stub]):
    """An endpoint of a capability. Made inside the running event loop.

    Args:
        address: Where it is.
        capability: Name of the capability, for logs.
        service_name: Full name of its gRPC service.
        make_stub: Makes the typed stub over a channel.
        settings: How it is called.
        metrics: Where its state is shown.
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
    ) -> None:
        self.address = address
        self.calls_in_flight = 0
        self._capability = capability
        self._metrics = metrics
        self._slow_start_s = settings.slow_start_s
        self._up_since = -math.inf
        self._log_latency: float | None = None
        self._answers = 0
        self._begun: dict[Ticket, float] = {}
        self._latency_seen = time.monotonic()
        self._idle = asyncio.Event()
        self._idle.set()
        self._streams: set[grpc.aio.Call] = set()
        self._is_leaving = False
        self._is_cutting = False
        self._channel = open_channel(settings, address)
        self.stub = make_stub(self._channel)
        self.breaker = Breaker(settings.breaker, self._breaker_changed)
        self.watch = HealthWatch(self._channel, service_name, settings.endpoint_health, self._health_changed)
        self._watching: asyncio.Task[None] | None = None

    @property
    def health(self) -> Health:
        """What it says of itself."""
        return self.watch.state

    @property
    def takes_calls(self) -> bool:
        """Whether it is well, as far as is known."""
        return self.health is Health.SERVING and self.breaker.state is BreakerState.CLOSED

    def state(self) -> EndpointState:
        """What is known of it now."""
        breaker = self.breaker
        return EndpointState(
            self.address, self.health, breaker.state, breaker.trips, breaker.next_probe_s, self.calls_in_flight
        )

    def start(self) -> None:
        """Begins to follow its health; a second call changes nothing."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self.watch.run())

    def reconfigure(self, settings: ClientSettings) -> None:
        """Other settings from now on. Those of the channel hold for endpoints that are new."""
        self._slow_start_s = settings.slow_start_s
        self.breaker.reconfigure(settings.breaker)
        self._metrics.breaker(self.breaker.state, self.breaker.next_probe_s)
        self.watch.settings = settings.endpoint_health

    @property
    def is_leaving(self) -> bool:
        """Whether it is being closed: it answers what it has, and gets nothing new."""
        return self._is_leaving

    async def leave(self, streams_s: float) -> None:
        """Closes it once its calls have ended: streams in `streams_s` seconds, others by their own deadlines."""
        await self._stop_watching()
        await self._emptied(streams_s)
        self._cut_streams()
        await self._emptied(_LONGEST_CALL_S)
        await self.close()

    async def close(self) -> None:
        """Ends calls in flight with UNREACHABLE. A second time, or while it leaves, does no harm."""
        await self._stop_watching()
        # gRPC cancels the calls that somebody awaits, and forgets the streams.
        self._cut_streams()
        await self._channel.close()
        self._metrics.gone()

    async def _stop_watching(self) -> None:
        self._is_leaving = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def _emptied(self, within_s: float) -> None:
        """Returns once it has no calls, or after `within_s` seconds."""
        # Not asyncio.wait_for: on 3.11 it loses a cancellation that comes as the event is set.
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()

    def _cut_streams(self) -> None:
        self._is_cutting = True
        for stream in list(self._streams):
            stream.cancel()

    @property
    def share_in_flight(self) -> float:
        """Its calls in flight and the next one, for the weight that it has as yet."""
        return (self.calls_in_flight + 1) / self._weight()

    @property
    def latency_s(self) -> float | None:
        """How long its answers took lately, or one takes already, in seconds; None: nothing is known of that.

        What is known fades within seconds: nobody must be passed over for ever who was slow once, or at its first call.
        """
        waited = [time.monotonic() - next(iter(self._begun.values()))] if self._begun else []
        if self._log_latency is not None:
            waited.append(math.exp(self._faded(self._log_latency)))
        return max(waited, default=None)

    @contextmanager
    def call(self, ticket: Ticket, *, timed: bool = True) -> Iterator[None]:
        """Around a call to it: counts it, and learns from its end; unless it is `timed`, nothing of how slow it is."""
        self.calls_in_flight += 1
        self._idle.clear()
        self._metrics.in_flight(self.calls_in_flight)
        started = time.monotonic()
        if timed:
            self._begun[ticket] = started
        try:
            yield
        except TorchlessError as error:
            self._metrics.attempt(error.kind)
            ticket.failed(error)
            if error.kind is ErrorKind.DEADLINE and not self._is_leaving:
                self.watch.suspect()
            if timed and error.kind in _FAULTS:
                self._learn(_FAULT_S)
            raise
        except asyncio.CancelledError:
            ticket.abandoned()
            if self._is_cutting and not is_this_task_cancelled():
                # It is gRPC's way to say that the call was cut; whoever called was not cancelled.
                self._metrics.attempt(ErrorKind.UNREACHABLE)
                raise unreachable(self._capability) from None
            raise
        except BaseException:
            ticket.abandoned()
            raise
        else:
            self._metrics.attempt(None)
            ticket.answered()
            if timed:
                self._learn(time.monotonic() - started)
        finally:
            self.calls_in_flight -= 1
            self._begun.pop(ticket, None)
            self._metrics.in_flight(self.calls_in_flight)
            if not self.calls_in_flight:
                self._idle.set()

    @contextmanager
    def stream(self, call: grpc.aio.Call) -> Iterator[None]:
        """Around reading the answers of `call`, within `call()`: it is over with that, and once the endpoint closes."""
        self._streams.add(call)
        try:
            yield
        finally:
            self._streams.discard(call)
            call.cancel()  # a caller who leaves early is not computed for

    def _learn(self, latency_s: float) -> None:
        # Of logarithms, so that one large request among small ones does not make it slow.
        latest = math.log(max(latency_s, _SHORTEST_S))
        self._answers += 1
        if self._log_latency is None:
            self._log_latency = latest
        else:
            # One that is still slow is known for it at once; of what a quicker answer disproves, what faded is gone.
            before = min(self._log_latency, max(latest, self._faded(self._log_latency)))
            self._log_latency = before + max(_SMOOTHING, 1 / self._answers) * (latest - before)
        self._latency_seen = time.monotonic()

    def _faded(self, log_latency: float) -> float:
        return log_latency - (time.monotonic() - self._latency_seen) / _LATENCY_MEMORY_S

    def _weight(self) -> float:
        if not self._slow_start_s:
            return 1.0
        return min(1.0, max(_LEAST_WEIGHT, (time.monotonic() - self._up_since) / self._slow_start_s))

    def _health_changed(self, health: Health) -> None:
        if health is Health.SERVING:
            self._up_since = time.monotonic()
            # What was before says nothing of what has been started since; without, it would stand idle for a minute.
            self.breaker.end_pause()
            self._log_latency, self._answers = None, 0
            self._metrics.breaker(self.breaker.state, self.breaker.next_probe_s)
        log = logger.info if health is Health.SERVING else logger.warning
        log("%s endpoint %s is %s", self._capability, self.address, health.value)
        self._metrics.health(serving=health is Health.SERVING)

    def _breaker_changed(self, state: BreakerState) -> None:
        if state is BreakerState.CLOSED:
            self._up_since = time.monotonic()
        log = logger.warning if state is BreakerState.OPEN else logger.info
        log("%s endpoint %s: its breaker is %s", self._capability, self.address, state.value)
        self._metrics.breaker(state, self.breaker.next_probe_s)
        if state is BreakerState.OPEN:
            self._metrics.tripped()
