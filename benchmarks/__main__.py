"""`python -m benchmarks`: measures, prints a summary, writes `benchmarks/results/`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import machine
from benchmarks.aims import verdicts
from benchmarks.chart import to_svg
from benchmarks.footprint import memory, start_seconds
from benchmarks.measure import WrongVectorsError, fidelity, idle_cores, measure, pools
from benchmarks.plan import FULL, QUICK, SHORT, Plan
from benchmarks.processes import ROOT, ChildFailedError
from benchmarks.report import to_markdown
from benchmarks.results import Results, to_json, warning
from benchmarks.samples import rows
from benchmarks.stack import LOAD, Interpreters, Layout, stack_up
from benchmarks.summary import summary
from benchmarks.texts import Length

_TRIED_TEXTS = 64


def bench(  # noqa: PLR0917  # each is an option of the command line
    quick: Annotated[bool, typer.Option(help="One short round: under two minutes.")] = False,
    no_peer: Annotated[bool, typer.Option("--no-peer", help="Leave infinity out.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds, in place of the plan's.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.2, help="Seconds of a window, in place of the plan's.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = ROOT / "benchmarks" / "results",
    gateway_python: Annotated[Path, typer.Option(help="Python without torch.")] = ROOT / ".venv/gateway/bin/python",
    bentos_python: Annotated[Path, typer.Option(help="Python with torch.")] = ROOT / ".venv/bentos/bin/python",
    peers_python: Annotated[Path, typer.Option(help="Python with infinity.")] = ROOT / ".venv/peers/bin/python",
) -> None:
    """Measure the stack beside the direct call and infinity, on this machine, with the same texts and weights."""
    plan = QUICK if quick else FULL
    plan = replace(plan, rounds=rounds or plan.rounds, seconds=seconds or plan.seconds, peer=not no_peer)
    console = Console()
    with tempfile.TemporaryDirectory() as logs:
        try:
            layout = Layout(Interpreters(gateway_python, bentos_python, peers_python), Path(logs))
            results = run(plan, layout, console)
        except (ChildFailedError, WrongVectorsError) as error:
            console.print(f"[red]The benchmark stopped:[/] {error}", highlight=False)
            raise typer.Exit(1) from error
    name = "quick" if quick else "bench"
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_bytes(to_json(results))
    (output / f"{name}.svg").write_text(to_svg(results.rows, [case.name for case in SHORT]))
    (output / f"{name}.md").write_text(to_markdown(results, chart=f"{name}.svg"))
    for table in summary(results):
        console.print(table)
    console.print(f"[red]{warning(results)}[/]")
    console.print(f"Written: {output / name}.md, .json and .svg", highlight=False)


def run(plan: Plan, layout: Layout, console: Console) -> Results:
    """The whole run, with a progress bar."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        task = progress.add_task("timing the gateway's start", total=None)
        port = layout.settings.gateway_port
        starts = [start_seconds(layout.gateway, port, layout.logs / "start.log") for _ in range(plan.starts)]
        progress.update(task, description="starting everybody")
        with stack_up(layout, peer=plan.peer) as stack:
            memory_idle = memory(stack.trees["gateway"])
            progress.update(task, description="comparing vectors")
            cosines = fidelity(stack, pools()[Length.SHORT][:_TRIED_TEXTS])
            facts = stack.direct.station.ask({"do": "facts", "texts": pools()}, timeout_s=60)
            progress.update(task, total=plan.rounds * len(plan.cases) * len(stack.contestants))
            samples = measure(stack, plan, lambda next_up: progress.update(task, advance=1, description=next_up))
            memory_used = memory(stack.trees["gateway"])
            processes = {contestant.name: contestant.processes for contestant in stack.contestants}
    table = rows(samples, reference=stack.direct.name, load=LOAD)
    interpreters = layout.interpreters
    environments = {"gateway": interpreters.gateway, "bentos": interpreters.bentos}
    environments |= {"peers": interpreters.peers} if plan.peer else {}
    return Results(
        machine=machine.facts(),
        versions={name: machine.versions(name, python) for name, python in environments.items()},
        threads=facts["threads"],
        tokens=facts["tokens"],
        plan=plan,
        fidelity=cosines,
        starts_s=starts,
        memory_idle=memory_idle,
        memory_used=memory_used,
        idle_cores=idle_cores(samples, processes),
        samples=samples,
        rows=table,
        verdicts=verdicts(table, starts, memory_used),
    )


if __name__ == "__main__":
    typer.run(bench)
