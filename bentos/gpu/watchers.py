"""Watchers of the status; used on the event loop only.

A watcher gets the newest snapshot, not every one, so that a slow reader costs only a bounded number of events.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass

from bentos.gpu.events import Event
from bentos.gpu.settings import WatchSettings
from bentos.gpu.snapshot import Snapshot
from torchless.contracts.errors import ErrorKind, TorchlessError


@dataclass(frozen=True, slots=True)
class Update:
    """One message to a watcher."""

    snapshot: Snapshot
    events: tuple[Event, ...]
    """Events since the last update, oldest first."""
    dropped: int
    """Number of older events since the last update that are left out."""


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
    """Sends snapshots to the watchers.

    Args:
        settings: Limits of watchers and of events for each.
    """

    def __init__(self, settings: WatchSettings) -> None:
        self._settings = settings
        self._watchers: set[_Watcher] = set()
        self._latest: Snapshot | None = None

    def publish(self, snapshot: Snapshot, events: Iterable[Event]) -> None:
        """Sets the newest snapshot. Watchers get it now if there are events, otherwise at their interval."""
        self._latest = snapshot
        events = tuple(events)
        for watcher in self._watchers:
            watcher.add(events)

    async def watch(self, interval_s: float) -> AsyncGenerator[Update, None]:
        """Yields the newest snapshot at once, then after every event and at least every `interval_s` seconds.

        Raises:
            TorchlessError: OVERLOADED, when there are too many watchers.
        """
        if self._latest is None:
            raise RuntimeError("watch was called before the first snapshot was published")
        if len(self._watchers) >= self._settings.max_watchers:
            raise TorchlessError(
                ErrorKind.OVERLOADED,
                f"the service is at its limit of {len(self._watchers)} watchers; call GetStatus instead",
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
