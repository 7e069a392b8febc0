"""What travels beside a request: who asks, under which id, and how long they wait."""

from __future__ import annotations

from dataclasses import dataclass

from torchless.clients.deadline import Deadline
from torchless.contracts.errors import invalid_input

TENANT_KEY = "x-tenant-id"
REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"


@dataclass(frozen=True, slots=True)
class CallContext:
    """Facts about a call that are not part of its request.

    Raises:
        TorchlessError: INVALID_INPUT, when one of them cannot be sent.
    """

    request_id: str = ""
    """Id that logs of every hop carry; empty: none."""
    tenant: str = ""
    """Whom the call is for; empty: nobody in particular."""
    traceparent: str = ""
    """W3C trace context (https://www.w3.org/TR/trace-context/); empty: none."""
    deadline: Deadline | None = None
    """Until when the caller waits; None: `deadline_s` of the client's settings for a call, and no deadline for a
    stream. It is a moment, so a context with a deadline is for one request."""

    def __post_init__(self) -> None:
        for name in ("request_id", "tenant", "traceparent"):
            text = getattr(self, name)
            # Told of here, because in a call that several share it would be everybody's error.
            if not (text.isascii() and text.isprintable()):
                raise invalid_input(name, "holds what metadata of gRPC cannot carry: only printable ASCII goes")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """gRPC metadata, without the keys that are empty."""
        pairs = ((REQUEST_ID_KEY, self.request_id), (TENANT_KEY, self.tenant), (TRACEPARENT_KEY, self.traceparent))
        return tuple(pair for pair in pairs if pair[1])
