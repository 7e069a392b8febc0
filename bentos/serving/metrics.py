"""Prometheus metrics of a bento, and the endpoint that serves them.

BentoML's own metrics leave out mounted servicers. No label holds a value from a caller.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Hashable
from functools import cache
from typing import NamedTuple, Protocol

from prometheus_client import Counter, Gauge, Histogram, start_http_server

logger = logging.getLogger(__name__)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)

CALLS = Counter(
    "torchless_calls", "Calls by method and outcome (OK, CANCELLED or the error kind).", ["method", "outcome"]
)
CALL_SECONDS = Histogram("torchless_call_seconds", "Duration of calls, in seconds.", ["method"], buckets=_SECONDS)
IN_FLIGHT = Gauge("torchless_calls_in_flight", "Calls being served.", ["method"])

_LABELS = ["service", "model"]
_BATCH_ITEMS = Histogram("torchless_batch_items", "Items in a batch.", _LABELS, buckets=_ITEMS)
_BATCH_TOKENS = Histogram("torchless_batch_tokens", "Tokens in a batch, padding included.", _LABELS, buckets=_TOKENS)
_PADDING_TOKENS = Counter("torchless_padding_tokens", "Padding computed, in tokens.", _LABELS)
_BATCH_SECONDS = Histogram("torchless_batch_seconds", "Duration of batches, in seconds.", _LABELS, buckets=_SECONDS)
_QUEUE_SECONDS = Histogram(
    "torchless_queue_seconds",
    "Time from admission until the device took the request's last item, in seconds.",
    _LABELS,
    buckets=_SECONDS,
)
_TRUNCATED_INPUTS = Counter(
    "torchless_truncated_inputs", "Inputs that were longer than the model reads and were truncated.", _LABELS
)
_WAITING_TOKENS = Gauge("torchless_waiting_tokens", "Tokens that wait for the device.", ["service"])


class Waiting(Protocol):
    """A queue of a device."""

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait for the device."""


class _ModelMetrics(NamedTuple):
    """The metrics of one model, kept because looking them up by label costs more than counting."""

    items: Histogram
    tokens: Histogram
    padding: Counter
    seconds: Histogram
    queue_seconds: Histogram
    truncated_inputs: Counter


class BatchMetrics:
    """Records the batches of a capability; the batcher's observer.

    Args:
        service: Name of the capability, for instance `embedding`.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._of = cache(self._labelled)

    def watch(self, *batchers: Waiting) -> None:
        """Reports the waiting tokens of `batchers` at every scrape."""
        _WAITING_TOKENS.labels(self._service).set_function(lambda: sum(each.waiting_tokens for each in batchers))

    def batch_done(self, key: Hashable, items: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Records one batch."""
        metrics = self._of(str(key))
        metrics.items.observe(items)
        metrics.tokens.observe(padded_tokens)
        metrics.padding.inc(padded_tokens - tokens)
        metrics.seconds.observe(seconds)

    def queued(self, model: str, seconds: float) -> None:
        """Records how long a request waited for the device."""
        self._of(model).queue_seconds.observe(seconds)

    def truncated(self, model: str, inputs: int) -> None:
        """Records inputs that were truncated."""
        self._of(model).truncated_inputs.inc(inputs)

    def _labelled(self, model: str) -> _ModelMetrics:
        all_metrics = (
            _BATCH_ITEMS,
            _BATCH_TOKENS,
            _PADDING_TOKENS,
            _BATCH_SECONDS,
            _QUEUE_SECONDS,
            _TRUNCATED_INPUTS,
        )
        return _ModelMetrics(*(metric.labels(self._service, model) for metric in all_metrics))  # type: ignore[arg-type]


class _CallMetrics(NamedTuple):
    """The metrics of one method's calls."""

    in_flight: Gauge
    seconds: Histogram


@cache
def call_metrics(method: str) -> _CallMetrics:
    """Calls in flight and their durations, for one method."""
    return _CallMetrics(IN_FLIGHT.labels(method), CALL_SECONDS.labels(method))


@cache
def calls_metric(method: str, outcome: str) -> Counter:
    """Calls of one method that ended with `outcome`."""
    return CALLS.labels(method, outcome)


def serve_metrics(host: str, port: int) -> int:
    """Serves all metrics of this process over HTTP, on a separate thread; does nothing when `port` is 0.

    If the port is in use, for instance by another replica on this machine, it takes a free one and logs it.

    Returns:
        The port; 0: none.
    """
    if not port:
        return 0
    try:
        start_http_server(port, addr=host)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        server, _ = start_http_server(0, addr=host)
        logger.warning(
            "the metrics port %d is in use, so the metrics of this process are on port %d; set `metrics_port` to "
            "choose another, or to 0 to serve none",
            port,
            server.server_port,
        )
        return server.server_port
    return port
