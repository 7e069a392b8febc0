"""The facts about one request that use cases need; knows no header."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gateway.capabilities.provenance import Provenance
from torchless.clients.call import CallContext
from torchless.contracts.errors import ErrorKind, TorchlessError


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Facts about one request, taken when it arrives."""

    request_id: str
    """Its id."""
    traceparent: str
    """W3C trace context; empty: none."""
    expires_at: float
    """When its caller stops waiting, on the event loop's clock, in seconds."""
    provenance: Provenance = field(default_factory=Provenance)
    """How its answer comes about."""

    def for_call(self) -> CallContext:
        """What a client sends along, with the time that is left.

        Raises:
            TorchlessError: DEADLINE, when nothing is left.
        """
        left = self.expires_at - asyncio.get_running_loop().time()
        if left <= 0:
            raise TorchlessError(ErrorKind.DEADLINE, "the request's time was over before it could be sent on")
        return CallContext(request_id=self.request_id, traceparent=self.traceparent, deadline_s=left)
