"""The facts about one request that use cases need; knows no header."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.capabilities.provenance import Provenance
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.contracts.errors import ErrorKind, TorchlessError


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Facts about one request, taken when it arrives."""

    request_id: str
    """Its id."""
    traceparent: str
    """W3C trace context; empty: none."""
    deadline: Deadline
    """Until when its caller waits."""
    tenant: str = ""
    """Whose data it works with; empty: no tenant in particular."""
    provenance: Provenance = field(default_factory=Provenance)
    """How its answer comes about."""

    def for_call(self) -> CallContext:
        """The context of a call that is made for this request.

        Raises:
            TorchlessError: DEADLINE, once the deadline has passed.
        """
        if self.deadline.expired:
            raise TorchlessError(ErrorKind.DEADLINE, "the request's deadline passed before the service was called")
        return CallContext(self.request_id, self.tenant, self.traceparent, self.deadline)
