"""Whether the service is ready, and what calls hear while it is not."""

from __future__ import annotations

from collections.abc import Callable

from torchless.contracts.errors import ErrorKind, TorchlessError

_LOADING = TorchlessError(
    ErrorKind.UNREACHABLE, "the service is still loading its model; try again shortly", retry_after_s=1.0
)
_LEAVING = TorchlessError(ErrorKind.UNREACHABLE, "the service is going away; try another or again", retry_after_s=1.0)


class Readiness:
    """Loading, then ready, failed or leaving."""

    def __init__(self) -> None:
        self._obstacle: TorchlessError | None = _LOADING
        self.on_change: Callable[[], None] = lambda: None
        """Called after every change, on the thread that made it."""

    @property
    def ready(self) -> bool:
        """Whether calls are served."""
        return self._obstacle is None

    def check(self) -> None:
        """Does nothing when ready.

        Raises:
            TorchlessError: Why calls are not served.
        """
        if self._obstacle is not None:
            raise self._obstacle.again()

    def become_ready(self) -> None:
        """Calls are served from now on, unless the service is already leaving."""
        if self._obstacle is _LOADING:
            self._become(None)

    def fail(self, error: TorchlessError) -> None:
        """Calls hear `error` from now on; the service does not get ready again."""
        if self._obstacle is not _LEAVING:
            self._become(error.again())

    def leave(self) -> None:
        """New calls are refused from now on."""
        self._become(_LEAVING)

    def _become(self, obstacle: TorchlessError | None) -> None:
        self._obstacle = obstacle
        self.on_change()
