"""`torchless up`: starts the stack, tells what happens to it, and stops it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncGenerator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.services import Service
from torchless.cli.stack import Died, Event, GivenUp, Ready, Stack

STILL_WAITING_S = 5.0
"""How often a wait is shown where there is no terminal to draw on, in seconds."""


def up(stack: Stack, console: Console) -> None:
    """Runs the stack until SIGINT, SIGTERM or SIGHUP; a second one cuts the orderly stop short.

    Raises:
        StackError: It cannot be started.
    """
    asyncio.run(_up(stack, console))


async def _up(stack: Stack, console: Console) -> None:
    async with stopped_by_signal() as stop, stack:
        console.print(urls(stack.services))
        running = asyncio.create_task(_run(stack, console))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        stopping.cancel()
        if stop.is_set():
            console.print("stopping")
        with contextlib.suppress(asyncio.CancelledError):
            await running
    console.print("stopped")


async def _run(stack: Stack, console: Console) -> None:
    await show_until_ready(stack, console)
    console.print("[bold green]the stack is up[/]; Ctrl-C stops it")
    async for event in stack.events():
        show(event, console)


async def show_until_ready(stack: Stack, console: Console) -> None:
    """Shows what happens, and that time passes, until every service is ready.

    Raises:
        StackError: One cannot be started.
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
    began = shown = time.monotonic()
    with console.status("") as status:
        while True:
            now = time.monotonic()
            line = f"waiting for {', '.join(stack.waiting_for)} ({now - began:.0f} s)"
            status.update(line)
            if not console.is_terminal and now - shown >= STILL_WAITING_S:
                console.print(line)
                shown = now
            await asyncio.sleep(0.2)


def show(event: Event, console: Console) -> None:
    """One line for an event; for a death also the end of the log."""
    name = event.service.name
    if isinstance(event, Ready):
        console.print(f"[green]{name}[/] is ready after {event.after_s:.1f} s")
    elif isinstance(event, GivenUp):
        reason = f": {escape(event.reason)}" if event.reason else ", it died too often"
        console.print(f"[bold red]{name}[/] is given up{reason}; the others go on")
    else:
        died = (
            f"died ({escape(event.how)}) and is started again" if isinstance(event, Died) else "takes long to be ready"
        )
        console.print(f"[bold red]{name}[/] {died}; the end of its log:")
        for line in event.log_tail.splitlines() or ["(nothing)"]:
            console.print(f"  [dim]{escape(line)}[/]", highlight=False)


def urls(services: Sequence[Service]) -> Table:
    """Where each service can be reached."""
    table = Table("service", "for", "address")
    for service in services:
        for purpose, address in service.urls.items():
            table.add_row(service.name, purpose, address)
    return table


@contextlib.asynccontextmanager
async def stopped_by_signal() -> AsyncGenerator[asyncio.Event, None]:
    """An event that the first signal to stop sets; the second cancels the task that holds the context."""
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
