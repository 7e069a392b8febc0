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
    without_redis = "" if layer.has_redis else " There was no `redis-server`, so the variants with Redis are left out."
    method = (
        "What a call costs beside the service: one that answers at once, with prepared bytes over real gRPC on "
        "loopback, from a process of its own. The bare stub has a channel with the same options, sets a deadline, and "
        "reads the answer as the client does. `EmbeddingClient` adds balancing, breaker, health watch, retries and "
        "metrics, over one endpoint; `client` is the same with what is named beside it, where three endpoints are "
        "three ports of the one service; `cache` is an `EmbeddingCache` before `EmbeddingClient`.",
        "All are in one process, on uvloop as the gateway is, each over connections of its own; a call has one short "
        f"text and brings one vector of 384 dimensions. {plan.rounds} rounds of {plan.seconds} s windows after "
        f"{plan.warm_up_s} s of load; they follow one another within a load, in the opposite order every other round. "
        "Figures are medians over the rounds; what is added to the bare stub is compared within a round.",
        "Where no load is named, one call is made at a time. At 32 in flight caller and service each keep a core busy, "
        "so a call's latency is mostly its wait for the others; what the layer costs then is the CPU: the caller's, "
        f"gRPC's threads included.{without_redis}",
    )
    return f"{table(HEAD, cells(layer))}\n\n" + "\n".join(f"- {line}" for line in method)
