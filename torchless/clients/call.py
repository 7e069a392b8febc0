"""The context of a call: what travels with a request."""

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
    """Id that the logs of every hop carry; empty: none."""
    tenant: str = ""
    """Tenant that the call is for; empty: none."""
    traceparent: str = ""
    """W3C trace context (https://www.w3.org/TR/trace-context/); empty: none."""
    deadline: Deadline | None = None
    """Until when the caller waits; None: `deadline_s` of the client's settings for a call, and no deadline for a
    stream. It is a moment, so a context with a deadline is for one request."""

    def __post_init__(self) -> None:
        text = f"{self.request_id}{self.tenant}{self.traceparent}"
        # Checked here, because in a call that several requests share it would fail all of them.
        if not (text.isascii() and text.isprintable()):
            raise invalid_input(self._unsendable_field(), "must be printable ASCII: gRPC metadata carries nothing else")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """gRPC metadata, without the empty values."""
        pairs: list[tuple[str, str]] = []
        if self.request_id:
            pairs.append((REQUEST_ID_KEY, self.request_id))
        if self.tenant:
            pairs.append((TENANT_KEY, self.tenant))
        if self.traceparent:
            pairs.append((TRACEPARENT_KEY, self.traceparent))
        return tuple(pairs)  # gRPC takes no list

    def _unsendable_field(self) -> str:
        fields = {"request_id": self.request_id, "tenant": self.tenant, "traceparent": self.traceparent}
        return next(name for name, text in fields.items() if not (text.isascii() and text.isprintable()))
