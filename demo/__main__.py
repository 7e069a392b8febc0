"""Starts the stack, finds the passages that answer three questions, and stops the stack.

    python -m demo

Does not disturb a running stack: it uses free ports and another state folder.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli import console as output
from torchless.cli.bentos import GATEWAY, pythons_in
from torchless.cli.errors import StackError
from torchless.cli.gateway_api import GatewayClient, GatewayError, Ranked
from torchless.cli.services import Service, StackSettings, stack_services
from torchless.cli.stack import Stack
from torchless.cli.up import show_until_ready, stopped_by_signal

HERE = Path(__file__).parent
PROJECT = HERE.parent
STATE = PROJECT / ".torchless/demo"
"""Folder for the demo's logs and state."""
FOUND = 10
"""Passages found by vector for each question, and then reranked."""
SHOWN = 3
"""Passages shown for each question."""
READY_WITHIN_S = 120.0
"""Time that the stack has to become ready, in seconds."""


def main() -> None:
    """Runs the demo; exits with 1 if the stack or a call fails, with 130 after a signal."""
    try:
        finished = asyncio.run(demonstrate(output.console()))
    except (StackError, GatewayError) as error:
        output.console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from error
    except asyncio.CancelledError as error:  # by a second signal
        raise SystemExit(130) from error
    if not finished:
        raise SystemExit(130)


async def demonstrate(console: Console) -> bool:
    """Starts the stack, asks the questions, prints the answers and stops; returns False if a signal interrupted it.

    Raises:
        StackError: The stack does not start.
        GatewayError: The gateway refuses a request.
    """
    pythons = {**pythons_in(PROJECT / ".venv"), GATEWAY: Path(sys.executable)}
    settings = StackSettings.on_free_ports(PROJECT, STATE, pythons, metrics=False)
    stack = Stack(without_keys(stack_services(settings)), STATE, directory=PROJECT)
    async with stopped_by_signal() as stop, stack:
        asking = asyncio.create_task(_ask(stack, settings.gateway_url, console))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([asking, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if asking.done():
            await asking
        else:
            asking.cancel()
        console.print("stopping")
    return not stop.is_set()


def without_keys(services: Sequence[Service]) -> tuple[Service, ...]:
    """The services with a gateway that requires no API key, whatever the user's environment or settings file says."""
    no_keys = {"TORCHLESS_GATEWAY_AUTH__API_KEYS": "[]"}
    return tuple(
        replace(service, environment={**service.environment, **no_keys}) if service.name == GATEWAY else service
        for service in services
    )


async def _ask(stack: Stack, url: str, console: Console) -> None:
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await show_until_ready(stack, console)
    except TimeoutError as error:
        raise StackError(f"not ready after {READY_WITHIN_S:.0f} s: {', '.join(stack.waiting_for)}") from error
    passages, questions = _lines("passages.txt"), _lines("questions.txt")
    async with GatewayClient(url) as gateway:
        index = await gateway.embed(passages)
        console.print(
            f"\nembedded {len(passages)} passages: {index.shape[1]} numbers each, over POST {url}/v1/embeddings\n"
        )
        vectors = await gateway.embed(questions)
        for question, vector in zip(questions, vectors, strict=True):
            # Vectors have length 1, so the dot product is the cosine similarity.
            cosines = index @ vector
            found = np.argsort(-cosines)[:FOUND]
            ranked = await gateway.rerank(question, [passages[index] for index in found])
            table = _before_and_after(question, passages, found, cosines, ranked)
            table.expand = console.is_terminal
            console.print(table)
    console.print(f"each question: the {FOUND} nearest passages by vector, reranked over POST {url}/v2/rerank")


def _before_and_after(
    question: str,
    passages: Sequence[str],
    found: NDArray[np.intp],
    cosines: NDArray[np.float32],
    ranked: Sequence[Ranked],
) -> Table:
    """The best passages after reranking, with their rank and score before and after."""
    table = Table("by vector", "reranked", "passage", title=escape(question), title_justify="left", title_style="bold")
    for rank, result in enumerate(ranked[:SHOWN], start=1):
        passage = found[result.index]
        before = f"{result.index + 1}. ({cosines[passage]:.3f})"
        table.add_row(before, f"{rank}. ({result.score:.3f})", escape(passages[passage]))
    return table


def _lines(name: str) -> list[str]:
    return (HERE / name).read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    main()
