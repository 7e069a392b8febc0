"""The context of a call: what travels with a request."""

from __future__ import annotations

from dataclasses import dataclass

from torchless.clients.deadline import Deadline
from torchless.contracts.errors import invalid_input

TENANT_KEY = "x-tenant-id"
REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"
MAX_REQUEST_ID = 128
"""Longest request id, in characters."""
MAX_REQUEST_IDS = 4096
"""Longest list of the request ids of a call that several requests share, in characters: gRPC refuses calls with more
than 8 KiB of metadata."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """Facts about a call that are not part of its request.

    Raises:
        TorchlessError: INVALID_INPUT, when one of them cannot be sent, or the request id is too long.
    """

    request_id: str = ""
    """Id that the logs of every hop carry, up to 128 characters; empty: none."""
    tenant: str = ""
    """Tenant that the call is for; empty: none."""
    traceparent: str = ""
    """W3C trace context (https://www.w3.org/TR/trace-context/); empty: none."""
    deadline: Deadline | None = None
    """Until when the caller waits; None: `deadline_s` of the client's settings for a call, and no deadline for a
    stream. It is a moment, so a context with a deadline is for one request."""
    other_request_ids: tuple[str, ...] = ()
    """Ids of the other requests that share the call; at most 4,096 characters with `request_id`."""

    def __post_init__(self) -> None:
        text = f"{self.request_id}{self.tenant}{self.traceparent}"
        # Checked here, because in a call that several requests share it would fail all of them.
        if not (text.isascii() and text.isprintable()):
            raise invalid_input(self._unsendable_field(), "must be printable ASCII: gRPC metadata carries nothing else")
        if len(self.request_id) > MAX_REQUEST_ID:
            raise invalid_input("request_id", f"must have at most {MAX_REQUEST_ID} characters")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """gRPC metadata, without the empty values; several request ids are separated by commas."""
        pairs: list[tuple[str, str]] = []
        ids = self.request_id
        if self.other_request_ids:
            ids = ",".join(filter(None, (ids, *self.other_request_ids)))
        if ids:
            pairs.append((REQUEST_ID_KEY, ids))
        if self.tenant:
            pairs.append((TENANT_KEY, self.tenant))
        if self.traceparent:
            pairs.append((TRACEPARENT_KEY, self.traceparent))
        return tuple(pairs)  # gRPC takes no list

    def _unsendable_field(self) -> str:
        fields = {"request_id": self.request_id, "tenant": self.tenant, "traceparent": self.traceparent}
        return next(name for name, text in fields.items() if not (text.isascii() and text.isprintable()))
