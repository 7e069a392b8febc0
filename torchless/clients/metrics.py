"""What the clients tell Prometheus.

With several processes (`PROMETHEUS_MULTIPROC_DIR`) gauges are kept a process: each has its own channels and breakers.
"""

from __future__ import annotations

import os
import time
from collections import Counter as Counts
from functools import lru_cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from torchless.clients.endpoint_state import BreakerState
from torchless.contracts.errors import ErrorKind

_BUCKETS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_STATES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_OUTCOMES: dict[ErrorKind | None, str] = {None: "OK"} | {kind: kind.value for kind in ErrorKind}


class ClientMetrics:
    """The metrics of all clients of a process, on one registry.

    Args:
        registry: Where they are registered; nobody else may have registered them there.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "torchless_client_calls",
            "Calls as their callers saw them end",
            ("capability", "outcome"),
            registry=registry,
        )
        self.seconds = Histogram(
            "torchless_client_call_seconds",
            "Time of a call with all its attempts, in seconds",
            ("capability",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.retries = Counter(
            "torchless_client_retries",
            "Attempts after the first, by why the one before did not do",
            ("capability", "reason"),
            registry=registry,
        )
        self.retries_denied = Counter(
            "torchless_client_retries_denied",
            "Attempts that were not made because the retry budget was spent",
            ("capability",),
            registry=registry,
        )
        self.concurrency_limit = Gauge(
            "torchless_client_concurrency_limit",
            "Calls that may be in flight now, as found by the adaptive limit",
            ("capability",),
            registry=registry,
            multiprocess_mode="liveall",
        )
        endpoint = ("capability", "endpoint")
        self.attempts = Counter(
            "torchless_client_attempts", "Attempts at one endpoint", (*endpoint, "outcome"), registry=registry
        )
        self.in_flight = self._gauge("torchless_client_in_flight", "Calls that the endpoint has now", registry)
        self.up = self._gauge("torchless_client_endpoint_up", "1 while the endpoint says that it is serving", registry)
        self.breaker = self._gauge(
            "torchless_client_breaker_state", "The endpoint's breaker: 0 closed, 1 half open, 2 open", registry
        )
        self.next_probe = self._gauge(
            "torchless_client_breaker_next_probe_timestamp_seconds",
            "When an open breaker lets a probe through, in seconds since the Unix epoch; 0: it is not open",
            registry,
        )
        self.trips = Counter(
            "torchless_client_breaker_trips", "Times that the breaker opened", endpoint, registry=registry
        )
        self._users: Counts[tuple[str, str]] = Counts()

    def of_endpoint(self, capability: str, address: str) -> EndpointMetrics:
        """Those of one endpoint."""
        self._users[capability, address] += 1
        return EndpointMetrics(self, capability, address)

    def endpoint_is_gone(self, capability: str, address: str) -> None:
        """Takes its series away, unless another client has it, or has it again."""
        labels = (capability, address)
        self._users[labels] -= 1
        if self._users[labels]:
            return
        del self._users[labels]
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            # Labels cannot be taken out of the files that processes share.
            self.up.labels(*labels).set(0)
            self.breaker.labels(*labels).set(_STATES[BreakerState.CLOSED])
            self.next_probe.labels(*labels).set(0)
            return
        for metric in (self.in_flight, self.up, self.breaker, self.next_probe, self.trips):
            metric.remove(*labels)
        for outcome in _OUTCOMES.values():
            self.attempts.remove(*labels, outcome)

    @staticmethod
    def _gauge(name: str, what: str, registry: CollectorRegistry) -> Gauge:
        return Gauge(name, what, ("capability", "endpoint"), registry=registry, multiprocess_mode="liveall")


class EndpointMetrics:
    """What one client tells of one endpoint; made by `ClientMetrics.of_endpoint`."""

    def __init__(self, metrics: ClientMetrics, capability: str, address: str) -> None:
        self._metrics = metrics
        self._labels = (capability, address)
        self._in_flight = metrics.in_flight.labels(*self._labels)
        self._shown_in_flight = 0
        self._trips = metrics.trips.labels(*self._labels)
        self._outcomes = {kind: metrics.attempts.labels(*self._labels, outcome) for kind, outcome in _OUTCOMES.items()}
        self._is_gone = False
        self.health(serving=False)
        self.breaker(BreakerState.CLOSED, 0.0)

    def attempt(self, kind: ErrorKind | None) -> None:
        """An attempt ended with an error of `kind`, or well."""
        self._outcomes[kind].inc()

    def in_flight(self, number: int) -> None:
        """So many calls are in flight."""
        # Another client of this process may have calls at the same endpoint.
        self._in_flight.inc(number - self._shown_in_flight)
        self._shown_in_flight = number

    def health(self, *, serving: bool) -> None:
        """It says (not) that it is serving."""
        if not self._is_gone:
            self._metrics.up.labels(*self._labels).set(serving)

    def breaker(self, state: BreakerState, next_probe_s: float) -> None:
        """Its breaker is in `state`, and lets a probe through in `next_probe_s` seconds."""
        if self._is_gone:
            return
        self._metrics.breaker.labels(*self._labels).set(_STATES[state])
        is_open = state is BreakerState.OPEN
        self._metrics.next_probe.labels(*self._labels).set(time.time() + next_probe_s if is_open else 0)

    def tripped(self) -> None:
        """Its breaker opened."""
        self._trips.inc()

    def gone(self) -> None:
        """There is no such endpoint any more; nothing but its calls' ends is told of it after that."""
        if not self._is_gone:
            self._is_gone = True
            self._metrics.endpoint_is_gone(*self._labels)


@lru_cache(maxsize=1)
def default_metrics() -> ClientMetrics:
    """Those on Prometheus' default registry."""
    return ClientMetrics(REGISTRY)
