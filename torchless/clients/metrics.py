"""Prometheus metrics of the clients.

With several processes (`PROMETHEUS_MULTIPROC_DIR`) each has its own gauges, because each has its own channels and
breakers.
"""

from __future__ import annotations

import os
import time
from collections import Counter as Counts
from functools import lru_cache, partial

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from torchless.clients.endpoint_state import BreakerState
from torchless.contracts.errors import ErrorKind

_BUCKETS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_STATES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_OUTCOMES: dict[ErrorKind | None, str] = {None: "OK"} | {kind: kind.value for kind in ErrorKind}


class ClientMetrics:
    """The metrics of all clients of a process, on one registry.

    Args:
        registry: Prometheus registry, on which they must not be registered yet.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        capability, endpoint = ("capability",), ("capability", "endpoint")
        self.calls = counter("torchless_client_calls", "Calls by their final outcome", (*capability, "outcome"))
        self.seconds = Histogram(
            "torchless_client_call_seconds",
            "Duration of a call with all its attempts, in seconds",
            capability,
            buckets=_BUCKETS,
            registry=registry,
        )
        self.retries = counter(
            "torchless_client_retries",
            "Attempts after the first, by the error of the attempt before",
            (*capability, "reason"),
        )
        self.retries_denied = counter(
            "torchless_client_retries_denied", "Retries that the retry budget did not allow", capability
        )
        self.concurrency_limit = gauge(
            "torchless_client_concurrency_limit",
            "Current adaptive limit on calls in flight",
            capability,
            multiprocess_mode="liveall",
        )
        self.attempts = counter("torchless_client_attempts", "Attempts at one endpoint", (*endpoint, "outcome"))
        self.trips = counter("torchless_client_breaker_trips", "Times that the circuit breaker opened", endpoint)
        gauge = partial(gauge, labelnames=endpoint, multiprocess_mode="liveall")
        self.in_flight = gauge("torchless_client_in_flight", "Calls in flight at the endpoint")
        self.up = gauge("torchless_client_endpoint_up", "1 while the endpoint reports SERVING")
        self.breaker = gauge(
            "torchless_client_breaker_state", "State of the endpoint's breaker: 0 closed, 1 half-open, 2 open"
        )
        self.next_probe = gauge(
            "torchless_client_breaker_next_probe_timestamp_seconds",
            "Time of the next half-open probe of an open breaker, in seconds since the Unix epoch; 0: not open",
        )
        self._users: Counts[tuple[str, str]] = Counts()

    def of_endpoint(self, capability: str, address: str) -> EndpointMetrics:
        """The metrics of one endpoint."""
        self._users[capability, address] += 1
        return EndpointMetrics(self, capability, address)

    def endpoint_is_gone(self, capability: str, address: str) -> None:
        """Removes the series of an endpoint, unless a client still uses it."""
        labels = (capability, address)
        self._users[labels] -= 1
        if self._users[labels]:
            return
        del self._users[labels]
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            # Labels cannot be removed from files shared by processes.
            self.up.labels(*labels).set(0)
            self.breaker.labels(*labels).set(_STATES[BreakerState.CLOSED])
            self.next_probe.labels(*labels).set(0)
            return
        for metric in (self.in_flight, self.up, self.breaker, self.next_probe, self.trips):
            metric.remove(*labels)
        for outcome in _OUTCOMES.values():
            self.attempts.remove(*labels, outcome)


class EndpointMetrics:
    """The metrics of one client about one endpoint; made by `ClientMetrics.of_endpoint`."""

    def __init__(self, metrics: ClientMetrics, capability: str, address: str) -> None:
        self._metrics = metrics
        self._labels = (capability, address)
        self.in_flight = metrics.in_flight.labels(*self._labels)
        """Calls in flight; incremented and decremented, as other clients of the process may use the same endpoint."""
        self._trips = metrics.trips.labels(*self._labels)
        self.outcomes = {kind: metrics.attempts.labels(*self._labels, outcome) for kind, outcome in _OUTCOMES.items()}
        """Attempts by the kind of their error; None: answered."""
        self._is_gone = False
        self.health(serving=False)
        self.breaker(BreakerState.CLOSED, 0.0)

    def health(self, *, serving: bool) -> None:
        """Sets whether the endpoint reports SERVING."""
        if not self._is_gone:
            self._metrics.up.labels(*self._labels).set(serving)

    def breaker(self, state: BreakerState, next_probe_s: float) -> None:
        """Sets the state of its breaker, and the seconds until its next half-open probe."""
        if self._is_gone:
            return
        self._metrics.breaker.labels(*self._labels).set(_STATES[state])
        is_open = state is BreakerState.OPEN
        self._metrics.next_probe.labels(*self._labels).set(time.time() + next_probe_s if is_open else 0)

    def tripped(self) -> None:
        """Counts an opening of its breaker."""
        self._trips.inc()

    def gone(self) -> None:
        """Removes the endpoint's series; after that only outcomes of its calls are counted."""
        if not self._is_gone:
            self._is_gone = True
            self._metrics.endpoint_is_gone(*self._labels)


@lru_cache(maxsize=1)
def default_metrics() -> ClientMetrics:
    """The metrics on Prometheus' default registry."""
    return ClientMetrics(REGISTRY)
