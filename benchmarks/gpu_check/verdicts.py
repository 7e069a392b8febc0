"""One verdict for each line: whether it is as good as it must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu_check.plan import LARGEST_ERROR, LEAST_COSINE, LEAST_RATIO

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one line of the check."""

    line: str
    """The subject: stage, model, dtype and load."""
    figure: str
    """What was measured."""
    wanted: str
    """What it must be."""
    outcome: str
    """`ok`, `FAILED` or `skipped`."""


def verdicts(results: Mapping[str, Any], *, timed: bool) -> list[Verdict]:
    """The verdicts on all stages.

    Args:
        results: What each stage returned, or `{"error": ...}` or `{"skipped": ...}`.
        timed: Whether throughput counts: not in a dry run.
    """
    found = []
    for stage, result in results.items():
        if isinstance(result, dict) and ("error" in result or "skipped because" in result):
            failed = "error" in result
            reason = result["error" if failed else "skipped because"]
            found.append(Verdict(stage, str(reason).splitlines()[-1], "", FAILED if failed else SKIPPED))
        elif stage == "fidelity":
            found += [_fidelity(row) for row in result]
        elif stage == "throughput":
            found += [_throughput(row, timed=timed) for row in result]
        elif stage == "service":
            found += [_service(row) for row in result]
        elif stage == "tests":
            found.append(_tests(result))
    return found


def _fidelity(row: Mapping[str, Any]) -> Verdict:
    line = f"fidelity, {row['model']}, {row['dtype']}"
    # Written so that NaN fails.
    if "cosine" in row:
        least = LEAST_COSINE[row["dtype"]]
        outcome = OK if row["cosine"] >= least else FAILED
        return Verdict(line, f"worst cosine {row['cosine']:.7f}", f"at least {least}", outcome)
    most = LARGEST_ERROR[row["model"]][row["dtype"]]
    outcome = OK if row["error"] <= most else FAILED
    return Verdict(line, f"largest error {row['error']:.5f} of the scores' deviation", f"at most {most}", outcome)


def _throughput(row: Mapping[str, Any], *, timed: bool) -> Verdict:
    line = f"throughput, {row['model']}, {row['dtype']}, {row['in flight']} in flight"
    figure = f"{row['ratio']:.2f} of the direct call ({row['requests/s']:.0f} requests/s, p95 {row['p95 ms']:.1f} ms)"
    if not timed:
        return Verdict(line, figure, "not judged in a dry run", SKIPPED)
    least = LEAST_RATIO[row["in flight"]]
    return Verdict(line, figure, f"at least {least}", OK if row["ratio"] >= least else FAILED)


def _service(row: Mapping[str, Any]) -> Verdict:
    line = f"gRPC, {row['model']}, {row['dtype']}, {row['in flight']} in flight"
    figure = f"{row['requests/s']:.0f} requests/s, p50 {row['p50 ms']:.1f} ms, p95 {row['p95 ms']:.1f} ms"
    return Verdict(line, figure, "answers", OK if row["requests/s"] > 0 else FAILED)


def _tests(result: Mapping[str, Any]) -> Verdict:
    figure = f"{result['passed']} passed, {result['skipped']} skipped, {len(result['failed'])} failed"
    if result["failed"]:
        return Verdict("tests marked gpu", f"{figure}: {', '.join(result['failed'])}", "none fails", FAILED)
    return Verdict("tests marked gpu", figure, "none fails", OK if result["passed"] else SKIPPED)
