"""The progress bar of commands that read long inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torchless.cli.console import console


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows progress on the standard error if that is a terminal; gives the function that counts items as done.

    Args:
        what: The items, for example `texts`.
        total: Their number; None: not known.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(f"[bold]{what}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    shown = sys.stderr.isatty()
    with Progress(*columns, console=console(stderr=True), disable=not shown, transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            current = bar.tasks[task]
            elapsed = current.elapsed or 0.0
            bar.update(task, rate=f"{current.completed / elapsed:.0f}/s" if elapsed else "")

        yield advance
