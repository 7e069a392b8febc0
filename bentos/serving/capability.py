"""The interface between a bento's own code and its serving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from bentos.serving.call_log import Describe


class Capability(Protocol):
    """A bento's servicer together with its model. It is created before the model is loaded, at no cost."""

    async def start(self, report: Callable[[str], None]) -> None:
        """Loads and warms up the model. The service is NOT_SERVING until this returns.

        Args:
            report: Takes what the start waits for, if anything; callers see it.

        Raises:
            TorchlessError: Why it cannot. Calls fail with this error until the process exits. Notes of the exception
                (`add_note`) are for the log only.
        """

    async def stop(self) -> None:
        """Releases the device. No call is in flight."""


@dataclass(frozen=True, slots=True)
class Mount:
    """How a capability is added to a gRPC server."""

    full_name: str
    """The gRPC service's full name, for health and reflection."""
    make: Callable[[], Capability]
    """Creates the capability, which is also the servicer."""
    add_to_server: Callable[[Any, grpc.aio.Server], None]
    """The generated `add_...Servicer_to_server`."""
    lost_device_is_final: bool = True
    """Whether a call that fails with GPU_UNAVAILABLE turns the service NOT_SERVING for good, since a process cannot
    recover the device of its model. False for a service that works without a device."""
    describe: Describe | None = None
    """Tells for the log what a message says; None: nothing."""
    watches: frozenset[str] = frozenset()
    """Methods that stream for as long as the caller listens. They end with UNREACHABLE when the service shuts down, so
    that it does not wait for them."""
