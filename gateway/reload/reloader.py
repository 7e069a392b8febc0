"""Applies changes of the settings file while the gateway runs.

Settings that cannot be used are refused, and the previous ones stay in force. A request keeps the settings that it
began with: it holds a `Services` that never changes, and a change makes another one for later requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import traceback
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from watchfiles import awatch

from gateway.http.metrics import GatewayMetrics
from gateway.reload.changes import changed, connection_settings, reloadable_part
from gateway.services import Closable, Services
from gateway.settings import GatewaySettings
from torchless.settings import SettingsError

logger = logging.getLogger(__name__)
BLANK = "blank"
"""Fingerprint of a file with nothing in it."""
_EMPTY = "the file is empty; to use the defaults, write a comment into it", ["the file is empty"]
"""At start an empty file means the defaults; later it is far more often one that is being written."""


class Reloader:
    """Follows the settings file; made inside the running event loop.

    Args:
        path: The file.
        services: What requests use at first; its settings are those of the start.
        swap: Gives other services to the requests that begin from then on.
        metrics: Where outcomes are counted.
        settle_s: Time for which the file must stay the same before it is read, in seconds: it may be half-written.
        check_s: Longest time between two checks of the file, in seconds. Changes are noticed at once, except on file
            systems that do not report them, and while the file's folder does not exist.
    """

    def __init__(
        self,
        path: Path,
        services: Services,
        swap: Callable[[Services], None],
        metrics: GatewayMetrics,
        *,
        settle_s: float = 0.25,
        check_s: float = 10.0,
    ) -> None:
        self._path = path
        self._services = services
        self._swap = swap
        self._metrics = metrics
        self._settle_s = settle_s
        self._check_s = check_s
        self._started = services.settings
        self._seen = ""
        self._wake = asyncio.Event()
        self._retiring: dict[Closable, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Checks the file at every change and on request, until it is cancelled.

        The first check is at once: the file may have changed since the settings of the start were read.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            await asyncio.sleep(0)  # the watch begins before the first check, so that no change falls between them
            while True:
                self._wake.clear()
                await self._check_safely()
                await self._wake.wait()

    def request(self) -> None:
        """Reads the file again now, changed or not; for signal handlers on the event loop."""
        self._seen = ""
        self._wake.set()

    async def check(self) -> None:
        """Applies what the file holds if that is new, once it stayed the same for `settle_s`."""
        # Threads, because disks can be slow and a long file takes a while to parse.
        found = await asyncio.to_thread(fingerprint, self._path)
        if found == self._seen:
            return
        while found != self._seen:
            self._seen = found
            await asyncio.sleep(self._settle_s)
            wanted = await asyncio.to_thread(_load)
            found = await asyncio.to_thread(fingerprint, self._path)
        if found == BLANK:
            wanted = SettingsError(*_EMPTY)
        if isinstance(wanted, SettingsError):
            logger.error("the changed settings are refused; the previous ones stay in force: %s", wanted)
            self._refuse("; ".join(dict.fromkeys(wanted.faults)) or "see the gateway's log")
        else:
            await self._take(wanted)

    async def close(self) -> None:
        """Closes the clients of services that left the settings; the other clients belong to the services."""
        for client in self._reclaim():
            await client.close()
        await asyncio.gather(*self._closing)

    async def _watch(self) -> None:
        """Wakes `run` when something changes in a folder on the way to the file, and every `check_s`."""
        timeout_ms = int(self._check_s * 1000)
        loop = asyncio.get_running_loop()
        reported = False
        while True:
            try:
                # Begun again after each change: a watch does not follow a path to the folder that replaces another.
                changes = awatch(
                    *watched_folders(self._path),
                    watch_filter=None,
                    recursive=False,
                    rust_timeout=timeout_ms,
                    yield_on_timeout=True,
                )
                loop.call_soon(self._wake_if_wanted)  # once the watch has begun; what changed before is not reported
                async with aclosing(changes):
                    await anext(changes)
                self._wake_if_wanted()
            except (
                OSError,
                RuntimeError,
            ) as error:  # a folder that has just gone, no inotify watch left, a failed watch
                if not reported:
                    how = "the settings file cannot be watched (%s); checking it every %g s"
                    logger.warning(how, type(error).__name__, self._check_s)
                reported = True
                await asyncio.sleep(self._check_s)
                self._wake_if_wanted()

    def _wake_if_wanted(self) -> None:
        if self._services.settings.reload.watch:
            self._wake.set()

    async def _check_safely(self) -> None:
        try:
            await self.check()
        except Exception as error:
            # The message may hold values.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("the changed settings could not be applied: %s\n%s", type(error).__name__, where)
            self._refuse("a defect of the gateway; see its log")

    async def _take(self, wanted: GatewaySettings) -> None:
        settings = reloadable_part(wanted, self._started)
        if late := changed(settings, wanted):
            logger.warning("these settings take effect after a restart: %s", ", ".join(late))
        names = changed(self._services.settings, settings)
        if names:
            await self._apply(settings)
            # A warning, so that it is seen where only warnings are logged.
            logger.warning("changed settings are in force: %s", ", ".join(names))
            if of_new := connection_settings(names):
                logger.warning("open connections keep their previous values of: %s", ", ".join(of_new))
        self._services.reload_state.refused = None
        self._metrics.record_reload("applied" if names else "unchanged")

    async def _apply(self, settings: GatewaySettings) -> None:
        before, leaving = self._services, self._reclaim()
        try:
            self._services = await before.reloaded(settings, leaving)
        finally:
            for each in {*leaving, *before.connected()}.difference(self._services.connected()):
                self._close_later(each)
        self._swap(self._services)

    def _refuse(self, reason: str) -> None:
        self._services.reload_state.refused = reason
        self._metrics.record_reload("refused")

    def _close_later(self, connected: Closable) -> None:
        """Closes a client, or a cache, once no request that began with it can still wait for it."""

        def close() -> None:
            del self._retiring[connected]
            task = asyncio.create_task(connected.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        longest_s = self._started.limits.max_deadline_s
        self._retiring[connected] = asyncio.get_running_loop().call_later(longest_s, close)

    def _reclaim(self) -> list[Closable]:
        """The clients that wait to be closed; they no longer do."""
        clients = list(self._retiring)
        for client in clients:
            self._retiring.pop(client).cancel()
        return clients


def fingerprint(path: Path) -> str:
    """The SHA-256 of what the file at `path` holds now, `BLANK`, or why it cannot be read.

    The content itself is compared: a file can be replaced by one of the same size, time and inode number, and touching
    a file changes no setting. Links are followed each time, because Kubernetes swaps the link to a ConfigMap's files.
    """
    if path.exists() and not path.is_file():
        return "NotAFile"  # reading a pipe would never end
    try:
        content = path.read_bytes()
    except OSError as error:
        return type(error).__name__
    return hashlib.sha256(content).hexdigest() if content.strip() else BLANK


def watched_folders(path: Path) -> set[Path]:
    """The folders in which a change can give `path` another content: its own, and that of each link on the way.

    Of a folder that does not exist, the closest one above it that does.
    """
    folders, left, links = set[Path](), [Path(os.path.abspath(path))], set[Path]()  # noqa: PTH100  # follows no link
    while left:
        each = left.pop()
        link = next((part for part in (*reversed(each.parents), each) if part.is_symlink() and part not in links), each)
        folders.add(next(folder for folder in link.parents if folder.is_dir()))
        if link.is_symlink() and link not in links:
            links.add(link)
            left.append(Path(os.path.abspath(link.parent / link.readlink() / each.relative_to(link))))  # noqa: PTH100
    return folders


def _load() -> GatewaySettings | SettingsError:
    try:
        return GatewaySettings.load()
    except SettingsError as error:
        return error
