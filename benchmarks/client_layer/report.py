"""The results of the client layer as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.client_layer.measure import ALONE, CROWDED, LayerResults
from benchmarks.markdown import table

TITLE = "The client layer"
HEAD = (
    "variant",
    "p50 ms",
    "p95 ms",
    "added p50 ms",
    "added p95 ms",
    "calls/s at 32",
    "p50 ms at 32",
    "p95 ms at 32",
    "CPU µs per call at 32",
)
"""Columns of `cells`; one call at a time unless they say 32."""


def cells(layer: LayerResults) -> Iterator[tuple[str, ...]]:
    """One row per variant, medians over the rounds."""
    for variant in layer.variants:
        alone, crowded = layer.row(variant, ALONE), layer.row(variant, CROWDED)
        times = (f"{value.median:.3f}" for value in (alone.p50_ms, alone.p95_ms))
        added = (f"{value.median:+.3f}" for value in (alone.added_p50_ms, alone.added_p95_ms))
        many = (f"{value.median:.2f}" for value in (crowded.p50_ms, crowded.p95_ms))
        cpu_us = f"{layer.cpu_us_of(variant, CROWDED):.0f}"
        yield variant, *times, *added, f"{crowded.items_per_second.median:.0f}", *many, cpu_us


def section(layer: LayerResults) -> str:
    """The table, and how it was measured."""
    plan = layer.plan
    without_redis = "" if layer.has_redis else " Without `redis-server`, the variants with Redis are missing."
    method = (
        "The cost of a call without the service's work: the service answers at once, with prepared bytes over real "
        "gRPC on loopback, from a separate process. The bare stub has a channel with the same options, sets a "
        "deadline, and reads the response as the client does. `EmbeddingClient` adds load balancing, breaker, health "
        "watch, retries and metrics, over one endpoint. `client` is the same with the named option; three endpoints "
        "are three ports of one service. `cache` is an `EmbeddingCache` in front of `EmbeddingClient`.",
        "All variants run in one process, on uvloop as in the gateway, each over separate connections. A call has one "
        f"short text and returns one vector of 384 dimensions. {plan.rounds} rounds of {plan.seconds} s windows after "
        f"{plan.warm_up_s} s of load; under each load the variants run one after another, in reverse order every other "
        "round. Figures are medians over the rounds; added time is compared with the bare stub within a round.",
        "Columns without a load are for one call at a time. At 32 in flight, caller and service each keep a core busy, "
        "so the latency of a call is mostly its wait for the others; the cost of the layer is then the caller's CPU "
        f"time, with gRPC's threads.{without_redis}",
    )
    return f"{table(HEAD, cells(layer))}\n\n" + "\n".join(f"- {line}" for line in method)
