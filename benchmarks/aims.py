"""What the numbers are held against; the aims stand in the design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contestants import GRPC
from benchmarks.footprint import Memory
from benchmarks.samples import Row

HTTP = ("gateway, base64", "gateway, float")
PEER = {"gateway, base64": "infinity, base64", "gateway, float": "infinity, float", GRPC: "infinity, base64"}
"""The peer's figures that each of ours is held against. It speaks no gRPC."""
_CROWDS = ("32 in flight", "64 in flight")
_ALONE = "1 in flight"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One aim and what was measured."""

    aim: str
    measured: str
    met: bool


def verdicts(rows: Sequence[Row], starts_s: Sequence[float], memory: Sequence[Memory]) -> list[Verdict]:
    """Every aim that this run can speak about."""
    by_place = {(row.contestant, row.case): row for row in rows}
    found = [*_overhead(by_place), *_throughput(by_place), *_ahead(by_place)]
    start = median(starts_s)
    found.append(Verdict("gateway answers /health/live within 1.5 s of its start", f"{start:.2f} s", start < 1.5))
    worker = max(process.resident_mib for process in memory if process.role == "worker")
    found.append(Verdict("gateway under 150 MiB resident a worker", f"{worker:.0f} MiB", worker < 150))
    return found


def _overhead(rows: dict[tuple[str, str], Row]) -> list[Verdict]:
    found = []
    for name in (GRPC, *HTTP):
        row = rows[name, _ALONE]
        p50, p95 = row.added_p50_ms.median, row.added_p95_ms.median
        found.append(Verdict(f"{name}, one at a time: under 4 ms added at the median", f"{p50:.2f} ms", p50 < 4))
        found.append(Verdict(f"{name}, one at a time: under 10 ms added at p95", f"{p95:.2f} ms", p95 < 10))
    return found


def _throughput(rows: dict[tuple[str, str], Row]) -> list[Verdict]:
    found = []
    for name, least in ((GRPC, 0.85), *((name, 0.75) for name in HTTP)):
        for case in _CROWDS:
            ratio = rows[name, case].ratio.median
            aim = f"{name}, {case}: at least {least} of the direct call's throughput"
            found.append(Verdict(aim, f"{ratio:.2f}", ratio >= least))
    return found


def _ahead(rows: dict[tuple[str, str], Row]) -> list[Verdict]:
    found = []
    for (name, case), row in rows.items():
        peer = rows.get((PEER.get(name, ""), case))
        if peer is not None:
            ours, theirs = row.texts_per_second.median, peer.texts_per_second.median
            aim = f"{name}, {case}: ahead of {peer.contestant}"
            found.append(Verdict(aim, f"{ours:.0f} against {theirs:.0f} texts/s", ours > theirs))
    return found
