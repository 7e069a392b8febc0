"""The run on a terminal."""

from __future__ import annotations

from rich.table import Table

from benchmarks.results import Results


def summary(results: Results) -> tuple[Table, Table]:
    """The figures, and the aims."""
    figures = Table("load", "contestant", "requests/s", "p50 ms", "p95 ms", "p99 ms", "of direct", "added ms", "batch")
    for row in results.rows:
        figures.add_row(
            row.case,
            row.contestant,
            f"{row.requests_per_second.median:.1f}",
            f"{row.p50_ms.median:.1f}",
            f"{row.p95_ms.median:.1f}",
            f"{row.p99_ms.median:.1f}",
            f"{row.ratio.median:.2f}",
            f"{row.added_p50_ms.median:+.2f}",
            "" if row.mean_batch is None else f"{row.mean_batch:.1f}",
            end_section=row is max((r for r in results.rows if r.case == row.case), key=results.rows.index),
        )
    aims = Table("aim", "measured", "")
    for verdict in results.verdicts:
        aims.add_row(verdict.aim, verdict.measured, "[green]met[/]" if verdict.met else "[red]missed[/]")
    return figures, aims
