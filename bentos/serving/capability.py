"""What a bento's own code looks like from the serving side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc


class Capability(Protocol):
    """One bento's servicer together with the model behind it.

    It is made in the serving process, before the model is loaded; making it costs nothing.
    """

    async def start(self) -> None:
        """Loads and warms up. The service says NOT_SERVING until this returns.

        Raises:
            TorchlessError: It cannot; calls are answered with this error and the service stays NOT_SERVING.
        """

    async def stop(self) -> None:
        """Lets go of the device; no call is in flight any more."""


@dataclass(frozen=True, slots=True)
class Mount:
    """How a capability is put on a gRPC server."""

    full_name: str
    """The gRPC service's full name, for health and reflection."""
    make: Callable[[], Capability]
    """Makes the capability, which is also the servicer."""
    add_to_server: Callable[[Any, grpc.aio.Server], None]
    """The generated `add_...Servicer_to_server`."""
    lost_device_is_final: bool = True
    """Whether a call that ends with GPU_UNAVAILABLE turns the whole service NOT_SERVING: the device that a model is on
    does not come back to its process. False where the service goes on without a device."""
    watches: frozenset[str] = frozenset()
    """Methods that stream for as long as the caller listens. They end with UNREACHABLE when the service leaves, so that
    it does not wait for them."""
