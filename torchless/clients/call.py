"""What travels beside a request: who asks, under which id, and how long they wait."""

from __future__ import annotations

from dataclasses import dataclass

TENANT_KEY = "x-tenant-id"
REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"


@dataclass(frozen=True, slots=True)
class CallContext:
    """Facts about a call that are not part of its request."""

    request_id: str = ""
    """Id that logs of every hop carry; empty: none."""
    tenant: str = ""
    """Whom the call is for; empty: nobody in particular."""
    traceparent: str = ""
    """W3C trace context (https://www.w3.org/TR/trace-context/); empty: none."""
    deadline_s: float | None = None
    """Seconds that the caller waits from now on; None: the client's own default."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """gRPC metadata, without the keys that are empty."""
        pairs = ((REQUEST_ID_KEY, self.request_id), (TENANT_KEY, self.tenant), (TRACEPARENT_KEY, self.traceparent))
        return tuple(pair for pair in pairs if pair[1])
