"""Whether the service is known to be down, from how the last calls went."""

from __future__ import annotations

from collections.abc import Callable

from torchless.contracts.errors import ErrorKind, TorchlessError

_GONE = frozenset({ErrorKind.UNREACHABLE, ErrorKind.CIRCUIT_OPEN})
_DOWN = _GONE | {ErrorKind.GPU_UNAVAILABLE}


class ServiceState:
    """What the last calls say.

    Args:
        is_down: Says whether the service is down, where somebody knows better; None: the last calls decide.
    """

    def __init__(self, is_down: Callable[[], bool] | None) -> None:
        self._is_down = is_down
        self._last: ErrorKind | None = None

    @property
    def down(self) -> bool:
        """Whether the last call found no service, or one without its device."""
        return self._last is not None if self._is_down is None else self._is_down()

    def failed(self, error: TorchlessError) -> None:
        """A call of any kind failed."""
        if error.kind in _DOWN:
            self._last = error.kind

    def embedded(self) -> None:
        """The service computed vectors."""
        self._last = None

    def listed(self) -> None:
        """The service listed its models, which it can without its device."""
        if self._last in _GONE:
            self._last = None
