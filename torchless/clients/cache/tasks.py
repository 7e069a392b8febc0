"""Background tasks whose failure is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_logger = logging.getLogger(__name__)


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Runs `work` as a task. A failure, which only a defect causes, is logged."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_failure)
    return task


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels `tasks` and waits until they have ended, with or without an error."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _logger.error("cache: %s failed", task.get_name(), exc_info=error)
