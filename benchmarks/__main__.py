"""`python -m benchmarks`: measures, prints a summary, writes `benchmarks/results/`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.client_layer.measure import LayerResults, measure_layer
from benchmarks.data.collection import COLLECTION, NoCollectionError
from benchmarks.data.inputs import Pools, make_pools
from benchmarks.measurement import machine
from benchmarks.measurement.measure import WrongAnswersError, fidelity, idle_cores, measure
from benchmarks.measurement.samples import rows
from benchmarks.paths import ROOT
from benchmarks.plan import FULL, QUICK, RERANKING, SHORT, LayerPlan, Part, Plan
from benchmarks.reporting.aims import layer_verdicts, verdicts
from benchmarks.reporting.chart import to_svg
from benchmarks.reporting.report import layer_to_markdown, to_markdown
from benchmarks.reporting.results import LayerRun, Results, to_json, warning
from benchmarks.reporting.summary import layer_summary, summary
from benchmarks.systems.contenders import DIRECT
from benchmarks.systems.footprint import memory, start_seconds
from benchmarks.systems.processes import ChildFailedError
from benchmarks.systems.stack import LOAD, Layout, stack_up
from torchless.cli.errors import StackError

_CHARTED = (SHORT, RERANKING)


def bench(  # noqa: PLR0917  # each is an option of the command line
    quick: Annotated[bool, typer.Option(help="Run one short round, under three minutes.")] = False,
    only: Annotated[Part | None, typer.Option(help="Measure only one part.")] = None,
    no_peer: Annotated[bool, typer.Option("--no-peer", help="Omit infinity.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Number of rounds.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.2, help="Length of a window, in seconds.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = ROOT / "benchmarks" / "results",
    collection: Annotated[
        Path, typer.Option(help="Folder with ori_pqal.json, for queries and documents; without it they are generated.")
    ] = COLLECTION,
    environments: Annotated[Path, typer.Option(help="Folder with the Python environments.")] = ROOT / ".venv",
) -> None:
    """Measure the stack, the direct call and infinity on this machine, with the same texts and weights."""
    plan = replace(QUICK if quick else FULL, peer=not no_peer).sized(rounds, seconds)
    plan = plan if only is None else plan.only(only)
    console = Console()
    results: Results | LayerRun
    with tempfile.TemporaryDirectory() as logs:
        try:
            if plan.cases:
                results = run(plan, Layout(environments, Path(logs)), make_pools(collection), console)
            else:
                results = run_layer(plan, environments, Path(logs), console)
        except (ChildFailedError, NoCollectionError, StackError, WrongAnswersError) as error:
            console.print(f"[red]The benchmark stopped:[/] {error}", highlight=False)
            raise typer.Exit(1) from error
    # A run of one part must not overwrite the results of a full run.
    name = "-".join(["quick" if quick else "bench", *([only] if only else [])])
    output.mkdir(parents=True, exist_ok=True)
    written = write(results, plan, output, name)
    for table in summary(results) if isinstance(results, Results) else layer_summary(results):
        console.print(table)
    console.print(f"[red]{warning(results)}[/]")
    console.print(f"Written: {', '.join(map(str, written))}", highlight=False)


def write(results: Results | LayerRun, plan: Plan, folder: Path, name: str) -> list[Path]:
    """Writes all results into `folder` and returns the files."""
    page, figures, chart = (folder / f"{name}.{kind}" for kind in ("md", "json", "svg"))
    figures.write_bytes(to_json(results))
    if isinstance(results, LayerRun):
        page.write_text(layer_to_markdown(results))
        return [page, figures]
    chart.write_text(to_svg(results.rows, [some for some in _CHARTED if some[0] in plan.cases]))
    page.write_text(to_markdown(results, chart=chart.name))
    return [page, figures, chart]


def run_layer(plan: Plan, environments: Path, logs: Path, console: Console) -> LayerRun:
    """Runs only the client layer, with a progress bar."""
    assert plan.layer is not None  # a plan has cases or the layer
    with _progress(console) as progress:
        layer = _layer(plan.layer, logs, progress, progress.add_task("the client layer", total=None))
    versions = {"gateway": machine.versions("gateway", environments)}
    return LayerRun(machine.facts(), versions, layer, layer_verdicts(layer))


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, refresh_per_second=2)


def _layer(plan: LayerPlan, logs: Path, progress: Progress, task: TaskID) -> LayerResults:
    return measure_layer(plan, logs, lambda next_up: progress.update(task, description=next_up))


def run(plan: Plan, layout: Layout, pools: Pools, console: Console) -> Results:
    """Runs everything, with a progress bar."""
    with _progress(console) as progress:
        task = progress.add_task("timing the gateway's start", total=None)
        port = layout.settings.gateway_port
        starts = [start_seconds(layout.gateway, port, layout.logs / "start.log") for _ in range(plan.starts)]
        layer = _layer(plan.layer, layout.logs, progress, task) if plan.layer else None
        progress.update(task, description="starting the contenders")
        with stack_up(layout, peer=plan.peer) as stack:
            memory_idle = memory(stack.trees["gateway"])
            progress.update(task, description="comparing answers")
            near = {what: fidelity(stack, pools, what) for what in plan.tasks}
            facts = stack.direct.ask({"do": "facts"}, timeout_s=60)
            tokens = stack.direct.ask({"do": "tokens", "texts": pools.by_name()}, timeout_s=60)
            processes = {(case.name, c.name): c.processes for case in plan.cases for c in stack.contenders_of(case)}
            progress.update(task, total=plan.rounds * len(processes))
            announce = partial(progress.update, task, advance=1)
            samples = measure(stack, plan, pools, lambda next_up: announce(description=next_up))
            memory_used = memory(stack.trees["gateway"])
    table = rows(samples, reference=DIRECT, load=LOAD)
    names = ("gateway", "bentos", *(("peers",) if plan.peer else ()))
    return Results(
        machine=machine.facts(),
        versions={name: machine.versions(name, layout.environments) for name in names},
        threads=facts["threads"],
        tokens=tokens,
        documents=pools.source,
        plan=plan,
        fidelity=near,
        starts_s=starts,
        memory_idle=memory_idle,
        memory_used=memory_used,
        idle_cores=idle_cores(samples, processes),
        samples=samples,
        rows=table,
        layer=layer,
        verdicts=[*verdicts(table, starts, memory_used), *(layer_verdicts(layer) if layer else [])],
    )


if __name__ == "__main__":
    typer.run(bench)
