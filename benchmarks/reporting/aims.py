"""The aims of the design, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.client_layer.measure import ALONE, LayerResults
from benchmarks.client_layer.variants import BARE, CLIENT
from benchmarks.measurement.samples import Row
from benchmarks.systems.contenders import GRPC, JOINED, NOT_JOINED, RERANKING_GRPC
from benchmarks.systems.footprint import Memory

HTTP = (JOINED, "gateway, float")
RERANKING_HTTP = ("gateway, /v2/rerank", "gateway, TEI /rerank")
PEER = {
    GRPC: "infinity, base64",
    JOINED: "infinity, base64",
    "gateway, float": "infinity, float",
    RERANKING_GRPC: "infinity, /rerank",
    "gateway, /v2/rerank": "infinity, /rerank",
}
"""The peer's contender that each of ours is compared with. The peer has no gRPC."""
_ALONE = (
    *(("embedding, 1 in flight", name) for name in (GRPC, *HTTP)),
    *(("reranking, 1 in flight", name) for name in (RERANKING_GRPC, *RERANKING_HTTP)),
)
_LEAST = {
    **{(f"embedding, {count} in flight", GRPC): 0.85 for count in (32, 64)},
    **{(f"embedding, {count} in flight", name): 0.75 for name in HTTP for count in (32, 64)},
    **{(f"reranking, {count} in flight", RERANKING_GRPC): 0.85 for count in (1, 8, 32)},
    **{(f"cross-encoder, {count} in flight", RERANKING_GRPC): 0.85 for count in (8, 32)},
}
"""Lowest throughput relative to the direct call, by case and contender."""

_Places = Mapping[tuple[str, str], Row]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One aim and its measurement."""

    aim: str
    measured: str
    met: bool


def verdicts(rows: Sequence[Row], starts_s: Sequence[float], memory: Sequence[Memory]) -> list[Verdict]:
    """The verdicts on all aims that this run measured."""
    by_place = {(row.case, row.contender): row for row in rows}
    found = [*_overhead(by_place), *_throughput(by_place), *_joining(by_place), *_ahead(by_place)]
    start = median(starts_s)
    found.append(Verdict("gateway answers /health/live within 1.5 s of its start", f"{start:.2f} s", start < 1.5))
    worker = max(process.resident_mib for process in memory if process.role == "worker")
    found.append(Verdict("gateway under 150 MiB resident per worker", f"{worker:.0f} MiB", worker < 150))
    return found


def layer_verdicts(layer: LayerResults) -> list[Verdict]:
    """The verdict on the aim of the client layer."""
    client, bare = layer.row(CLIENT, ALONE), layer.row(BARE, ALONE)
    added = client.added_p95_ms
    # All are medians over the rounds, so the first may differ from the difference of the others.
    spread = f"{added.median:+.2f} ms ({added.least:+.2f} to {added.most:+.2f})"
    measured = f"{spread}: {client.p95_ms.median:.2f} against {bare.p95_ms.median:.2f} ms"
    aim = f"client layer, {ALONE}: the layer adds under 1 ms at p95 over a bare stub"
    return [Verdict(aim, measured, added.median < 1)]


def _overhead(rows: _Places) -> Iterator[Verdict]:
    for case, name in _ALONE:
        if row := rows.get((case, name)):
            p50, p95 = row.added_p50_ms.median, row.added_p95_ms.median
            yield Verdict(f"{case}: {name} adds under 4 ms at the median", f"{p50:.2f} ms", p50 < 4)
            yield Verdict(f"{case}: {name} adds under 10 ms at p95", f"{p95:.2f} ms", p95 < 10)


def _throughput(rows: _Places) -> Iterator[Verdict]:
    for (case, name), least in _LEAST.items():
        if row := rows.get((case, name)):
            ratio = row.ratio.median
            aim = f"{case}: {name} has at least {least} of the direct call's {row.unit}/s"
            yield Verdict(aim, f"{ratio:.2f}", ratio >= least)


def _joining(rows: _Places) -> Iterator[Verdict]:
    for case in (f"embedding, {count} in flight" for count in (32, 64)):
        joined, alone = rows.get((case, JOINED)), rows.get((case, NOT_JOINED))
        if joined and alone:
            with_it, without = joined.items_per_second.median, alone.items_per_second.median
            aim = f"{case}: the gateway that joins requests is ahead of the one that does not"
            yield Verdict(aim, f"{with_it:.0f} against {without:.0f} {joined.unit}/s", with_it > without)


def _ahead(rows: _Places) -> Iterator[Verdict]:
    for (case, name), row in rows.items():
        if peer := rows.get((case, PEER.get(name, ""))):
            ours, theirs = row.items_per_second.median, peer.items_per_second.median
            aim = f"{case}: {name} is ahead of {peer.contender}"
            yield Verdict(aim, f"{ours:.0f} against {theirs:.0f} {row.unit}/s", ours > theirs)
