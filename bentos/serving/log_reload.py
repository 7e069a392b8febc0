"""Applies changes of the log's settings while a service runs; all other settings are read once, at the start."""

from __future__ import annotations

import asyncio
import logging

from bentos.serving.settings import ServingSettings
from torchless.settings import LogSettings, SettingsError
from torchless.telemetry.logs import set_level

logger = logging.getLogger(__name__)
_POLL_S = 1.0
"""How often the file is read: it is small, and seldom changes."""


class LogReload:
    """The settings of the log in force: those at the start, then those in the service's settings file.

    Args:
        settings: All settings at the start.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self._kind = type(settings)
        self._settings = settings
        self._applied = self._last = self._content()
        self._task: asyncio.Task[None] | None = None

    def __call__(self) -> LogSettings:
        """The settings in force."""
        return self._settings.log

    def begin(self) -> None:
        """Follows the file on the running event loop, if there is a file."""
        if self._kind.file() is not None:
            self._task = asyncio.get_running_loop().create_task(self._follow())

    def check(self) -> None:
        """Applies the file if it has changed.

        Not if it has changed since the last check as well: it may be half written.
        """
        content, last = self._content(), self._last
        self._last = content
        if content == self._applied or content != last:
            return
        self._applied = content
        try:
            wanted = self._kind.load()
        except SettingsError as error:
            logger.error("the changed settings are refused; the previous ones stay in force: %s", error)
            return
        before = self._settings.log
        log = wanted.log.model_copy(update={"format": before.format})
        self._settings = self._settings.model_copy(update={"log": log})
        if log != before:
            set_level(log.level)
            # Warnings, so that they are seen where only warnings are logged.
            logger.warning("changed settings are in force: log")
        if wanted != self._settings:
            logger.warning("all other changed settings take effect after a restart")

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            self.check()

    def _content(self) -> bytes | None:
        """What the file holds; None: it cannot be read."""
        path = self._kind.file()
        try:
            return path.read_bytes() if path is not None and path.is_file() else None
        except OSError:
            return None
