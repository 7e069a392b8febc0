"""`torchless up`: starts the stack, prints its events, and stops it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncGenerator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.events import Died, Event, GivenUp, Ready, Retries, StartFailed, WorkerEnded
from torchless.cli.log_lines import readable
from torchless.cli.services import Service
from torchless.cli.stack import Stack
from torchless.settings.problems import shown

PROGRESS_S = 5.0
"""How often the progress is printed if the output is not a terminal, in seconds."""


def up(stack: Stack, url: str, console: Console) -> None:
    """Runs the stack until SIGINT, SIGTERM or SIGHUP; a second signal kills it.

    Args:
        stack: The stack, not yet started.
        url: Base URL of its gateway.
        console: Where to print.

    Raises:
        StackError: The stack cannot start.
    """
    asyncio.run(_up(stack, url, console))


async def _up(stack: Stack, url: str, console: Console) -> None:
    async with stopped_by_signal() as stop, stack:
        console.print(addresses(stack.services))
        _say(console, f"logs: {escape(shown(stack.logs))} (torchless logs -f)")
        running = asyncio.create_task(_run(stack, url, console))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        stopping.cancel()
        if stop.is_set():
            console.print("stopping")
        with contextlib.suppress(asyncio.CancelledError):
            await running
    console.print("stopped")


async def _run(stack: Stack, url: str, console: Console) -> None:
    await show_until_ready(stack, console)
    console.print("[bold green]the stack is up[/]; stop it with Ctrl-C or `torchless down`; try it:")
    console.print(f"  {example(url)}", markup=False, highlight=False, soft_wrap=True)
    async for event in stack.events():
        show(event, console)


async def show_until_ready(stack: Stack, console: Console) -> None:
    """Prints events and progress until every service is ready.

    Raises:
        StackError: A service cannot start.
    """
    waiting = asyncio.create_task(_show_waiting(stack, console))
    try:
        async for event in stack.until_ready():
            show(event, console)
    finally:
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting


async def _show_waiting(stack: Stack, console: Console) -> None:
    began = printed = time.monotonic()
    with console.status("") as status:
        while True:
            now = time.monotonic()
            line = f"waiting for {', '.join(stack.waiting_for)} ({now - began:.0f} s)"
            status.update(line)
            if not console.is_terminal and now - printed >= PROGRESS_S:
                console.print(line)
                printed = now
            await asyncio.sleep(0.2)


def show(event: Event, console: Console) -> None:
    """Prints an event, with the end of the log if the service died or is slow."""
    name = event.service.name
    if isinstance(event, Ready):
        _say(console, f"[green]{name}[/] is ready after {event.after_s:.1f} s")
    elif isinstance(event, GivenUp):
        _say(console, f"[bold red]{name}[/] is not restarted: {escape(event.reason)}; the other services keep running")
    elif isinstance(event, Retries):
        _say(console, f"[yellow]{name}[/]: {escape(event.reason)}")
    elif isinstance(event, StartFailed):
        _say(console, f"[bold red]{name}[/] does not start: {escape(event.reason)}")
    elif isinstance(event, WorkerEnded):
        _say(console, f"[bold red]{name}[/]: a worker ended: {escape(event.how)}; a new one starts")
    else:
        problem = f"died ({escape(event.how)}) and restarts" if isinstance(event, Died) else "is slow to become ready"
        _say(console, f"[bold red]{name}[/] {problem}; the end of its log:")
        for line in event.log_tail.splitlines() or ["(empty)"]:
            _say(console, f"  [dim]{escape(readable(line))}[/]")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def addresses(services: Sequence[Service]) -> Table:
    """A table of the services' addresses and settings files."""
    table = Table("service", "purpose", "address or file")
    for service in services:
        for purpose, address in service.urls.items():
            table.add_row(service.name, purpose, escape(address))
        file = "none: defaults and environment" if service.config is None else shown(service.config)
        table.add_row(service.name, "settings", escape(file))
    return table


def example(url: str) -> str:
    """A request to the gateway at `url`, to copy into a shell."""
    body = '{"input": ["A cell divides.", "The harbour froze."]}'
    return f"curl -s {url}/v1/embeddings -H 'Content-Type: application/json' -d '{body}'"


@contextlib.asynccontextmanager
async def stopped_by_signal() -> AsyncGenerator[asyncio.Event, None]:
    """Gives an event that the first stop signal sets; the second signal cancels the current task."""
    loop, task, stop = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()

    def on_signal() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
