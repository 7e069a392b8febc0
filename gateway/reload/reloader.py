"""Applies changes of the settings' file while the gateway runs.

What cannot be used is refused, and what was before stays in force. A request keeps the settings that it began with:
it holds a `Services` that never changes, and a change makes another for the requests from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

from gateway.http.metrics import Instruments
from gateway.reload.changes import changed, connection_settings, reloadable_part
from gateway.services import Closable, Services
from gateway.settings import GatewaySettings
from torchless.settings import SettingsError

logger = logging.getLogger(__name__)
SETTLE_S = 0.25
"""Time for which the file has to stay the same before it is taken, in seconds: it may be half-written."""
BLANK = "blank"
"""Fingerprint of a file with nothing in it."""
_EMPTY = "the file is empty: a comment in it says that the defaults are meant", ["the file is empty"]
"""At the start an empty file is taken for the defaults; later it is far more often one that is being written."""


class Reloader:
    """Looks at the settings' file again and again; made inside the running event loop.

    Args:
        path: The file.
        services: What requests work with so far; its settings are those of the start.
        swap: Makes other services those of the requests that begin from then on.
        instruments: Where outcomes are counted.
    """

    def __init__(
        self, path: Path, services: Services, swap: Callable[[Services], None], instruments: Instruments
    ) -> None:
        self._path = path
        self._services = services
        self._swap = swap
        self._instruments = instruments
        self._started = services.settings
        self._seen = ""
        self._asked = asyncio.Event()
        self._retiring: dict[Closable, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Looks every `reload.interval_s` and whenever it is asked to; has no end of its own.

        The first look is at once: the file may have changed since the settings of the start were read.
        """
        while True:
            try:
                await self.look()
            except Exception as error:
                # The message may hold values.
                where = "".join(traceback.format_tb(error.__traceback__))
                logger.error("a change of the settings failed: %s\n%s", type(error).__name__, where)
                self._refuse("a defect of the gateway; its log says where")
            with contextlib.suppress(TimeoutError):
                # Not asyncio.wait_for: on 3.11 it loses a cancellation that comes as the event is set.
                async with asyncio.timeout(self._services.settings.reload.interval_s or None):
                    await self._asked.wait()
            if self._asked.is_set():
                self._asked.clear()
                self._seen = ""

    def ask(self) -> None:
        """Has the file looked at now, whether it is new or not; for handlers of signals on the event loop."""
        self._asked.set()

    async def look(self) -> None:
        """Applies what the file holds if that is new, once it stays the same for `SETTLE_S`."""
        # All that touches the file is beside the event loop: disks can be slow, and a long file takes a while to parse.
        found = await asyncio.to_thread(fingerprint, self._path)
        if found == self._seen:
            return
        while found != self._seen:
            self._seen = found
            await asyncio.sleep(SETTLE_S)
            wanted = await asyncio.to_thread(_load)
            found = await asyncio.to_thread(fingerprint, self._path)
        if found == BLANK:
            wanted = SettingsError(*_EMPTY)
        if isinstance(wanted, SettingsError):
            logger.error("the changed settings are refused, those before stay in force: %s", wanted)
            self._refuse("; ".join(dict.fromkeys(wanted.faults)) or "the gateway's log says why")
        else:
            await self._take(wanted)

    async def close(self) -> None:
        """Closes clients of services that are no longer in the settings; the others are the services' to close."""
        for client in self._called_back():
            await client.close()
        await asyncio.gather(*self._closing)

    async def _take(self, wanted: GatewaySettings) -> None:
        settings = reloadable_part(wanted, self._started)
        if late := changed(settings, wanted):
            logger.warning("these settings take effect after a restart: %s", ", ".join(late))
        names = changed(self._services.settings, settings)
        if names:
            await self._apply(settings)
            # A warning: whoever logs only those wants to see it, too.
            logger.warning("changed settings are in force: %s", ", ".join(names))
            if of_new := connection_settings(names):
                logger.warning("of these, connections that are open keep what they have: %s", ", ".join(of_new))
        self._services.reload_state.refused = None
        self._instruments.record_reload("applied" if names else "unchanged")

    async def _apply(self, settings: GatewaySettings) -> None:
        before, leaving = self._services, self._called_back()
        try:
            self._services = await before.reloaded(settings, leaving)
        finally:
            for each in {*leaving, *before.connected()}.difference(self._services.connected()):
                self._retire(each)
        self._swap(self._services)

    def _refuse(self, reason: str) -> None:
        self._services.reload_state.refused = reason
        self._instruments.record_reload("refused")

    def _retire(self, connected: Closable) -> None:
        """Closes a client, or a cache, once no request that began with it can still wait for it."""

        def close() -> None:
            del self._retiring[connected]
            task = asyncio.create_task(connected.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        longest_s = self._started.limits.max_deadline_s
        self._retiring[connected] = asyncio.get_running_loop().call_later(longest_s, close)

    def _called_back(self) -> list[Closable]:
        """The clients that would be closed, and now are not."""
        clients = list(self._retiring)
        for client in clients:
            self._retiring.pop(client).cancel()
        return clients


def _load() -> GatewaySettings | SettingsError:
    try:
        return GatewaySettings.load()
    except SettingsError as error:
        return error


def fingerprint(path: Path) -> str:
    """The SHA-256 of what the file at `path` holds now, `BLANK`, or why it cannot be read.

    The content itself is compared: a file can be replaced by one of the same size, time and inode number, and one that
    was only touched says nothing new. Links are followed each time, because Kubernetes swaps the one that leads to a
    ConfigMap's files.
    """
    if path.exists() and not path.is_file():
        return "NotAFile"  # reading a pipe would never end
    try:
        content = path.read_bytes()
    except OSError as error:
        return type(error).__name__
    return hashlib.sha256(content).hexdigest() if content.strip() else BLANK
