"""Writes `docs/metrics.md` from the metrics themselves: `python -m docs.metrics_tables`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

import bentos.gpu.metrics
import bentos.serving.metrics
from gateway.http.metrics import GatewayMetrics
from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.metrics import ClientMetrics

TARGET = Path(__file__).parent / "metrics.md"
_HEAD = """# Metrics

Written by `make docs` from the code; do not edit.

Every program serves Prometheus metrics over HTTP: the gateway on `GET /metrics`, each bento on the port of its setting
`metrics_port` (9101 embedding, 9102 reranking, 9103 GPU). No label holds a text, a key or another value from a request.
With several workers of a program, gauges of endpoints and limits have a `pid` label. A histogram has the usual series
`_bucket`, `_sum` and `_count`.

## Queries to begin with

| question | PromQL |
|---|---|
| requests per second by route | `sum by (route) (rate(torchless_gateway_requests_total[5m]))` |
| share of failed requests | `sum(rate(torchless_gateway_requests_total{status=~"5.."}[5m])) / sum(rate(torchless_gateway_requests_total[5m]))` |
| refused requests per second | `sum(rate(torchless_gateway_requests_total{status="429"}[5m]))` |
| p95 of a route, in seconds | `histogram_quantile(0.95, sum by (le) (rate(torchless_gateway_request_seconds_bucket{route="/v1/embeddings"}[5m])))` |
| p95 of the wait for the device, in seconds | `histogram_quantile(0.95, sum by (le) (rate(torchless_gateway_queue_seconds_bucket[5m])))` |
| hit ratio of the cache | `sum(rate(torchless_cache_lookups_total{outcome="hit"}[5m])) / sum(rate(torchless_cache_lookups_total{level="memory"}[5m]))` |
| mean items in a batch | `rate(torchless_batch_items_sum[5m]) / rate(torchless_batch_items_count[5m])` |
| share of padding | `rate(torchless_padding_tokens_total[5m]) / rate(torchless_batch_tokens_sum[5m])` |
| how busy a device is | `rate(torchless_batch_seconds_sum[5m])` |
| open circuit breakers | `torchless_client_breaker_state == 2` |
| texts that were truncated | `sum by (route) (rate(torchless_gateway_truncated_inputs_total[5m]))` |
"""  # noqa: E501  # a row of a table is one line
_TABLE = "| metric | type | labels | what |\n|---|---|---|---|\n"


class MetricRow(NamedTuple):
    """One metric."""

    name: str
    """As in a query; a counter ends in `_total`."""
    type: str
    labels: tuple[str, ...]
    what: str


def sections() -> dict[str, list[MetricRow]]:
    """The metrics of each program, by heading."""
    clients, cache = CollectorRegistry(), CollectorRegistry()
    ClientMetrics(clients)
    CacheMetrics(cache)
    of_clients, of_cache = _of_registry(clients), _of_registry(cache)
    of_gateway = _of_registry(GatewayMetrics().registry)
    return {
        "The gateway": [row for row in of_gateway if row not in of_clients + of_cache],
        "Clients, in the gateway and in programs that use `torchless.clients`": of_clients,
        "The cache of embeddings": of_cache,
        "Bentos": _of_module(bentos.serving.metrics),
        "The GPU service": _of_module(bentos.gpu.metrics),
    }


def document() -> str:
    """The page."""
    return _HEAD + "".join(f"\n## {heading}\n\n{_TABLE}{_lines(rows)}" for heading, rows in sections().items())


def _lines(rows: Iterable[MetricRow]) -> str:
    return "".join(
        f"| `{row.name}` | {row.type} | {', '.join(row.labels)} | {row.what.rstrip('.')} |\n" for row in rows
    )


def _of_registry(registry: CollectorRegistry) -> list[MetricRow]:
    return [_row(metric) for metric in registry._collector_to_names if isinstance(metric, MetricWrapperBase)]


def _of_module(module: ModuleType) -> list[MetricRow]:
    return list(_rows(vars(module).values()))


def _rows(values: Iterable[object]) -> Iterator[MetricRow]:
    for value in values:
        if isinstance(value, MetricWrapperBase):
            yield _row(value)
        elif isinstance(value, bentos.gpu.metrics.Shown):
            yield from (_family_row(family) for family in value.describe())


def _row(metric: MetricWrapperBase) -> MetricRow:
    name = f"{metric._name}_total" if metric._type == "counter" else metric._name
    return MetricRow(name, str(metric._type), tuple(metric._labelnames), metric._documentation or "")


def _family_row(family: Metric) -> MetricRow:
    return MetricRow(family.name, str(family.type), tuple(getattr(family, "_labelnames", ())), family.documentation)


if __name__ == "__main__":
    TARGET.write_text(document())
