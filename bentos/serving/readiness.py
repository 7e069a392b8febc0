"""Whether the service is ready, and what calls hear while it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from torchless.contracts.errors import ErrorKind, TorchlessError

_LOADING = TorchlessError(
    ErrorKind.UNREACHABLE, "the service is still loading its model; try again shortly", retry_after_s=1.0
)
LEAVING = TorchlessError(ErrorKind.UNREACHABLE, "the service is going away; try another or again", retry_after_s=1.0)
"""What is heard of a service that leaves."""


class Readiness:
    """Loading, then ready, failed or leaving. May be changed on any thread."""

    def __init__(self) -> None:
        self._obstacle: TorchlessError | None = _LOADING
        self._draining = False
        self._listeners: set[Callable[[], None]] = set()

    @property
    def ready(self) -> bool:
        """Whether calls are served."""
        return self._obstacle is None

    @property
    def healthy(self) -> bool:
        """Whether calls should be sent here; no longer, once the service drains, though they are still served."""
        return self.ready and not self._draining

    @property
    def leaving(self) -> bool:
        """Whether the service waits for what is in flight and for nothing else."""
        return self._obstacle is LEAVING

    @property
    def listeners(self) -> int:
        """How many wait for a change."""
        return len(self._listeners)

    def check(self) -> None:
        """Does nothing when ready.

        Raises:
            TorchlessError: Why calls are not served.
        """
        if self._obstacle is not None:
            raise self._obstacle.copy()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition`, which is looked up now and after every change, holds."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def listener() -> None:
            loop.call_soon_threadsafe(changed.set)

        self._listeners.add(listener)
        try:
            while not condition():
                await changed.wait()
                changed.clear()
        finally:
            self._listeners.discard(listener)

    def become_ready(self) -> None:
        """Calls are served from now on, unless the service is already leaving."""
        if self._obstacle is _LOADING:
            self._become(None)

    def fail(self, error: TorchlessError) -> None:
        """Calls hear `error` from now on; the service does not get ready again."""
        if not self.leaving:
            self._become(error.copy())

    def drain(self) -> None:
        """Callers are asked to go elsewhere from now on."""
        self._draining = True
        self._tell()

    def leave(self) -> None:
        """New calls are refused from now on."""
        self._become(LEAVING)

    def _become(self, obstacle: TorchlessError | None) -> None:
        self._obstacle = obstacle
        self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()
