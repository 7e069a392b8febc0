"""Those who watch the status. On the event loop alone.

Each gets the newest snapshot, not every one: a caller that reads slowly costs a bounded number of events and no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass

from bentos.gpu.events import Event
from bentos.gpu.registry import Snapshot
from bentos.gpu.settings import WatchSettings
from torchless.contracts.errors import ErrorKind, TorchlessError


@dataclass(frozen=True, slots=True)
class Update:
    """What a watcher is sent."""

    snapshot: Snapshot
    events: tuple[Event, ...]
    """Since the last update, the oldest first."""
    dropped: int
    """Events since the last update that are left out, the oldest."""


class _Watcher:
    def __init__(self, max_events: int) -> None:
        self._events: deque[Event] = deque(maxlen=max_events)
        self._dropped = 0
        self.changed = asyncio.Event()

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self._dropped += len(self._events) == self._events.maxlen
            self._events.append(event)
            self.changed.set()

    def take(self) -> tuple[tuple[Event, ...], int]:
        taken = tuple(self._events), self._dropped
        self._events.clear()
        self._dropped = 0
        self.changed.clear()
        return taken


class Watchers:
    """Hands snapshots to those who watch.

    Args:
        settings: How many may watch, and how much is kept for each.
    """

    def __init__(self, settings: WatchSettings) -> None:
        self._settings = settings
        self._watchers: set[_Watcher] = set()
        self._latest: Snapshot | None = None

    def publish(self, snapshot: Snapshot, events: Iterable[Event]) -> None:
        """The newest snapshot. Those who watch are sent it when something happened, else at their interval."""
        self._latest = snapshot
        events = tuple(events)
        for watcher in self._watchers:
            watcher.add(events)

    async def watch(self, interval_s: float) -> AsyncGenerator[Update, None]:
        """The newest snapshot at once, then at every change and at least every `interval_s` seconds, for ever.

        Raises:
            TorchlessError: OVERLOADED, when as many watch as may.
        """
        if self._latest is None:
            raise RuntimeError("nothing was published before somebody watched")
        if len(self._watchers) >= self._settings.max_watchers:
            raise TorchlessError(
                ErrorKind.OVERLOADED,
                f"{len(self._watchers)} callers watch already, as many as may; ask GetStatus instead",
                retry_after_s=interval_s,
            )
        watcher = _Watcher(self._settings.max_events)
        self._watchers.add(watcher)
        try:
            while True:
                yield Update(self._latest, *watcher.take())
                try:
                    async with asyncio.timeout(interval_s):
                        await watcher.changed.wait()
                except TimeoutError:
                    pass  # the interval is over
        finally:
            self._watchers.discard(watcher)
