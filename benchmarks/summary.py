"""The run on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from benchmarks.results import Results

_HEAD = ("p50 ms", "p95 ms", "of direct", "added p50", "added p95", "batch")


def summary(results: Results) -> Iterator[Table]:
    """One table a load, and the aims."""
    for case in dict.fromkeys(row.case for row in results.rows):
        rows = [row for row in results.rows if row.case == case]
        figures = Table(title=case, title_justify="left")
        figures.add_column("contestant", min_width=16)
        for name in (f"{rows[0].unit}/s", *_HEAD):
            figures.add_column(name, justify="right")
        for row in rows:
            latency = (f"{value.median:.1f}" for value in (row.p50_ms, row.p95_ms))
            batch = "" if row.mean_batch is None else f"{row.mean_batch:.1f}"
            added = (f"{value.median:+.2f}" for value in (row.added_p50_ms, row.added_p95_ms))
            ratio = f"{row.ratio.median:.2f}"
            figures.add_row(row.contestant, f"{row.items_per_second.median:.1f}", *latency, ratio, *added, batch)
        yield figures
    aims = Table("", "measured", "aim")
    for verdict in results.verdicts:
        aims.add_row("[green]met[/]" if verdict.met else "[red]missed[/]", verdict.measured, verdict.aim)
    yield aims
