"""`python -m benchmarks.quality`: measures, prints, writes `benchmarks/results/`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.data.collection import COLLECTION, Collection, NoCollectionError, read_collection
from benchmarks.measurement import machine
from benchmarks.paths import ROOT
from benchmarks.quality.ranking import NOT_FOUND, ndcg, ranks
from benchmarks.quality.report import DEPTH, Quality, to_json, to_markdown, to_table
from benchmarks.quality.search import search, work_of
from benchmarks.quality.services import GatewayServices, GRPCServices, Services
from benchmarks.quality.significance import compare
from benchmarks.systems.processes import ChildFailedError
from benchmarks.systems.stack import servers_up
from torchless.cli.bentos import pythons_in
from torchless.cli.errors import StackError
from torchless.cli.gateway_api import GatewayError
from torchless.cli.services import StackSettings, stack_services
from torchless.clients.sync import background
from torchless.contracts.errors import TorchlessError

_STATED = (ChildFailedError, GatewayError, NoCollectionError, StackError, TorchlessError)
"""Errors whose message is enough for the user."""


def quality(  # noqa: PLR0917  # each is an option of the command line
    collection: Annotated[Path, typer.Option(help="Folder with ori_pqal.json.")] = COLLECTION,
    top: Annotated[int, typer.Option(min=DEPTH, help="Documents found by vector and reranked for each question.")] = 50,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of questions to ask; all by default.")] = None,
    gateway: Annotated[str | None, typer.Option(help="URL of a running gateway, to call it over HTTP.")] = None,
    embedding: Annotated[str | None, typer.Option(help="host:port of a running embedding service.")] = None,
    reranking: Annotated[str | None, typer.Option(help="host:port of a running reranking service.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = ROOT / "benchmarks" / "results",
    environments: Annotated[Path, typer.Option(help="Folder with the Python environments.")] = ROOT / ".venv",
) -> None:
    """Measure nDCG@10 on a collection, by vector and reranked. Starts the services unless you give addresses."""
    if (embedding is None) != (reranking is None) or (gateway and embedding):
        raise typer.BadParameter("pass --gateway, or both --embedding and --reranking, or none of them")
    console = Console()
    run = background.current().run  # the loop of the readiness checks: gRPC supports one loop per process
    try:
        read = read_collection(collection)
        if gateway:
            found = run(measure(GatewayServices(gateway), read, top, limit, console))
        elif embedding and reranking:
            found = run(measure(GRPCServices(embedding, reranking), read, top, limit, console))
        else:
            with services_up(environments, console) as services:
                found = run(measure(services, read, top, limit, console))
    except _STATED as error:
        console.print(f"[red]The measurement stopped:[/] {error}", highlight=False)
        raise typer.Exit(1) from error
    # A run with some of the questions must not overwrite the results of a full run.
    name = "quality" if limit is None else "quality-part"
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_bytes(to_json(found))
    (output / f"{name}.md").write_text(to_markdown(found))
    console.print(to_table(found))
    console.print(f"Written: {output / name}.md and .json", highlight=False)


@contextmanager
def services_up(environments: Path, console: Console) -> Iterator[Services]:
    """Runs the embedding and the reranking service with default settings, on free ports, without a gateway."""
    names = ("embedding", "reranking")
    with tempfile.TemporaryDirectory() as folder:
        settings = StackSettings.on_free_ports(ROOT, Path(folder), pythons_in(environments), metrics=False)
        console.print("starting the services")
        with servers_up([each for each in stack_services(settings) if each.name in names], Path(folder)):
            yield GRPCServices(*map(settings.address, names))


async def measure(services: Services, collection: Collection, top: int, limit: int | None, console: Console) -> Quality:
    """Runs the measurement, with a progress bar.

    Args:
        services: The services that embed and rerank.
        collection: Questions and documents.
        top: Documents reranked for each question; at most all of them.
        limit: Questions to ask; None: all.
        console: Shows the progress.
    """
    # A limit or top above the size of the collection means all of it.
    questions = min(limit or len(collection.questions), len(collection.questions))
    top = min(top, len(collection.documents))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    started = time.perf_counter()
    async with services:
        models = await services.models()
        with Progress(*columns, console=console, refresh_per_second=2) as progress:
            task = progress.add_task("embedding and reranking", total=work_of(collection, questions, top))
            orders = await search(
                services, collection, questions, top, lambda done: progress.update(task, advance=done)
            )
    right = np.arange(questions)
    before, after = ranks(orders.by_vector, right), ranks(orders.reranked, right)
    first, second = ndcg(before, DEPTH), ndcg(after, DEPTH)
    return Quality(
        collection=collection.name,
        questions=questions,
        documents=len(collection.documents),
        top=top,
        api=services.name,
        models=models,
        machine=machine.facts(),
        seconds=time.perf_counter() - started,
        found=float((before != NOT_FOUND).mean()),
        by_vector=float(first.mean()),
        reranked=float(second.mean()),
        difference=compare(first, second),
    )


if __name__ == "__main__":
    typer.run(quality)
