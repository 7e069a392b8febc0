"""The run on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from benchmarks.results import Results

_HEAD = ("requests/s", "p50 ms", "p95 ms", "p99 ms", "of direct", "added ms", "batch")


def summary(results: Results) -> Iterator[Table]:
    """One table a load, and the aims."""
    for case in dict.fromkeys(row.case for row in results.rows):
        figures = Table(title=case, title_justify="left")
        figures.add_column("contestant", min_width=16)
        for name in _HEAD:
            figures.add_column(name, justify="right")
        for row in results.rows:
            if row.case == case:
                latency = (f"{value.median:.1f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms))
                batch = "" if row.mean_batch is None else f"{row.mean_batch:.1f}"
                compared = (f"{row.ratio.median:.2f}", f"{row.added_p50_ms.median:+.2f}")
                figures.add_row(row.contestant, f"{row.requests_per_second.median:.1f}", *latency, *compared, batch)
        yield figures
    aims = Table("", "measured", "aim")
    for verdict in results.verdicts:
        aims.add_row("[green]met[/]" if verdict.met else "[red]missed[/]", verdict.measured, verdict.aim)
    yield aims
