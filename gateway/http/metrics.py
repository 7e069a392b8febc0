"""Prometheus metrics of the gateway.

The label `route` is the declared route, never the requested path, so the number of series is bounded. Several workers
share their counts through the folder `PROMETHEUS_MULTIPROC_DIR`, which BentoML sets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.metrics import ClientMetrics

CONTENT_TYPE = CONTENT_TYPE_LATEST
_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_QUEUE_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)


class GatewayMetrics:
    """The metrics of one gateway process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        """Where all of them are registered."""
        labels = ("method", "route", "status")
        self.clients = ClientMetrics(self.registry)
        """The metrics of the clients."""
        self.cache = CacheMetrics(self.registry)
        """The metrics of the cache of embeddings."""
        self.requests = Counter("torchless_gateway_requests", "Requests answered", labels, registry=self.registry)
        self.seconds = Histogram(
            "torchless_gateway_request_seconds",
            "Time from the arrival of a request to the end of its response, in seconds",
            ("method", "route"),
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.queue_seconds = Histogram(
            "torchless_gateway_queue_seconds",
            "Time that the inputs of a request waited in their service for the device, in seconds",
            registry=self.registry,
            buckets=_QUEUE_BUCKETS,
        )
        self.truncated = Counter(
            "torchless_gateway_truncated_inputs",
            "Inputs that were longer than the model reads and were truncated",
            ("route",),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "torchless_gateway_requests_in_flight",
            "Requests in progress",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._reloads = Counter(
            "torchless_gateway_settings_reloads",
            "Settings files applied, refused, or found unchanged",
            ("outcome",),
            registry=self.registry,
        )
        self._settings_applied = Gauge(
            "torchless_gateway_settings_applied_timestamp_seconds",
            "Time when settings were last applied or the gateway started; the oldest of all workers",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._settings_refused = Gauge(
            "torchless_gateway_settings_refused",
            "1 while a worker has refused the newest settings and keeps older ones",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._settings_applied.set_to_current_time()

    def record_reload(self, outcome: Literal["applied", "refused", "unchanged"]) -> None:
        """Counts one check of the settings file."""
        self._reloads.labels(outcome).inc()
        self._settings_refused.set(outcome == "refused")
        if outcome == "applied":
            self._settings_applied.set_to_current_time()

    def exposition(self, *, endpoints: bool = True) -> bytes:
        """The metrics of all workers in Prometheus' text format.

        Args:
            endpoints: Whether to include the series of single endpoints, whose label is an address.
        """
        registry = self.registry
        if folder := os.environ.get(_MULTIPROCESS):
            _remove_killed(Path(folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        text = generate_latest(registry)
        if endpoints:
            return text
        return b"".join(line for line in text.splitlines(keepends=True) if b'endpoint="' not in line)

    def close(self) -> None:
        """Removes the live gauges of this process, such as the requests in flight."""
        if os.environ.get(_MULTIPROCESS):
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _remove_killed(folder: Path) -> None:
    """Removes the live gauges of workers that were killed."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdecimal() and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)  # another worker may have removed it


def _is_alive(pid: int) -> bool:
    """Whether the process runs; a killed process stays a zombie until its supervisor collects it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # there is no /proc, or the process just ended
        return True
    return state[:1] != ["Z"]
