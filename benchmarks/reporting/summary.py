"""A summary of the run for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from benchmarks.client_layer.measure import LayerResults
from benchmarks.client_layer.report import HEAD, TITLE, cells
from benchmarks.reporting.aims import Verdict
from benchmarks.reporting.results import LayerRun, Results

_COLUMNS = 6
"""Columns of the client layer's table that fit a terminal."""
_CASE_HEAD = ("p50 ms", "p95 ms", "of direct", "added p50", "added p95", "batch")


def summary(results: Results) -> Iterator[Table]:
    """One table for each load, the client layer, and the aims."""
    for case in dict.fromkeys(row.case for row in results.rows):
        rows = [row for row in results.rows if row.case == case]
        figures = Table(title=case, title_justify="left")
        figures.add_column("contender", min_width=16)
        for name in (f"{rows[0].unit}/s", *_CASE_HEAD):
            figures.add_column(name, justify="right")
        for row in rows:
            latency = (f"{value.median:.1f}" for value in (row.p50_ms, row.p95_ms))
            batch = "" if row.mean_batch is None else f"{row.mean_batch:.1f}"
            added = (f"{value.median:+.2f}" for value in (row.added_p50_ms, row.added_p95_ms))
            ratio = f"{row.ratio.median:.2f}"
            figures.add_row(row.contender, f"{row.items_per_second.median:.1f}", *latency, ratio, *added, batch)
        yield figures
    if results.layer is not None:
        yield _layer(results.layer)
    yield _aims(results.verdicts)


def layer_summary(run: LayerRun) -> Iterator[Table]:
    """The tables of a run of only the client layer."""
    yield _layer(run.layer)
    yield _aims(run.verdicts)


def _layer(layer: LayerResults) -> Table:
    figures = Table(title=TITLE, title_justify="left")
    figures.add_column(HEAD[0], min_width=20)
    for name in HEAD[1:_COLUMNS]:
        figures.add_column(name, justify="right", min_width=6, max_width=8)
    for line in cells(layer):
        figures.add_row(*line[:_COLUMNS])
    return figures


def _aims(verdicts: Sequence[Verdict]) -> Table:
    aims = Table("", "measured", "aim")
    for verdict in verdicts:
        aims.add_row("[green]met[/]" if verdict.met else "[red]missed[/]", verdict.measured, verdict.aim)
    return aims
