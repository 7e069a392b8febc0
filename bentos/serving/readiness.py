"""Readiness of the service, and the error of calls while it is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from torchless.contracts.errors import ErrorKind, TorchlessError

LEAVING = TorchlessError(
    ErrorKind.UNREACHABLE, "the service is shutting down; retry on another replica", retry_after_s=1.0
)
"""The error of new calls while the service shuts down."""


class Readiness:
    """Loading, then ready, failed or shutting down. May be changed on any thread."""

    def __init__(self) -> None:
        self._obstacle: TorchlessError | None = _loading("the service is loading")
        self._draining = False
        self._listeners: set[Callable[[], None]] = set()

    @property
    def ready(self) -> bool:
        """Whether calls are served."""
        return self._obstacle is None

    @property
    def healthy(self) -> bool:
        """Whether new calls should come here. False once the service drains, though it still serves calls."""
        return self.ready and not self._draining

    @property
    def reason(self) -> TorchlessError | None:
        """Why new calls should not come here; None: they should."""
        return LEAVING if self.ready and self._draining else self._obstacle

    @property
    def leaving(self) -> bool:
        """Whether the service is shutting down and only finishes the calls in flight."""
        return self._obstacle is LEAVING

    @property
    def failure(self) -> TorchlessError | None:
        """Why the service will not become ready again; None: it is, or may become ready, or is shutting down."""
        return None if self.ready or self.leaving or self._is_loading else self._obstacle

    @property
    def listeners(self) -> int:
        """Number of coroutines that wait for a change."""
        return len(self._listeners)

    def check(self) -> None:
        """Raises the reason when calls are not served.

        Raises:
            TorchlessError: Why calls are not served.
        """
        if self._obstacle is not None:
            raise self._obstacle.copy()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; it is evaluated now and after every change."""
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

    def loading(self, message: str) -> None:
        """Gives `message` as the reason from now on, if the service is still loading."""
        if self._is_loading:
            self._become(_loading(message))

    def become_ready(self) -> None:
        """Serves calls from now on, unless the service is already shutting down."""
        if self._is_loading:
            self._become(None)

    def fail(self, error: TorchlessError) -> None:
        """Fails every call with `error` from now on; the service does not become ready again."""
        if not self.leaving:
            self._become(error.copy())

    def drain(self) -> None:
        """Reports NOT_SERVING from now on, so that clients turn to another replica."""
        self._draining = True
        self._notify()

    def leave(self) -> None:
        """Refuses new calls from now on."""
        self._become(LEAVING)

    @property
    def _is_loading(self) -> bool:
        return self._obstacle is not None and self._obstacle.kind is ErrorKind.LOADING

    def _become(self, obstacle: TorchlessError | None) -> None:
        self._obstacle = obstacle
        self._notify()

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _loading(message: str) -> TorchlessError:
    return TorchlessError(ErrorKind.LOADING, f"{message}; retry shortly")
