"""The table of a run: a row a case, from what was counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from tests.resilience.outcomes import Outcome, Row


def table_of(rows: Sequence[Row]) -> Table:
    """The rows in the order of the cases' numbers, and their sums."""
    table = Table(title="Fault suite: requests and what became of them", title_justify="left")
    table.add_column("case", overflow="fold")
    for name in ("sent", *Outcome, "p50 ms", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("kept", no_wrap=True)
    table.add_column("measured", overflow="fold", ratio=1)
    for row in sorted(rows, key=lambda row: _number(row.case)):
        counts = [str(row.counts[outcome]) for outcome in Outcome]
        kept = "yes" if row.passed else "NO"
        table.add_row(row.case, str(row.sent), *counts, _ms(row.p50_s), _ms(row.p99_s), kept, row.figures)
    table.add_section()
    sums = [str(sum(row.counts[outcome] for row in rows)) for outcome in Outcome]
    table.add_row("all", str(sum(row.sent for row in rows)), *sums)
    return table


def _number(case: str) -> int:
    return int(case.split(maxsplit=1)[0].rstrip("."))


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1000:.1f}"
