"""The closed list of error kinds, and how each looks over gRPC and over HTTP.

One table a transport. `ErrorKind` travels as the reason of a `google.rpc.ErrorInfo` in the trailing status
(https://google.aip.dev/193), because two kinds can share a gRPC status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import grpc

ERROR_DOMAIN = "torchless"
"""Domain of the `google.rpc.ErrorInfo` that carries a kind."""


TOO_LATE = "too_late"
"""`metadata["reason"]` of an OVERLOADED that is about the caller's own deadline: there is room, but what is asked for
would not be done in time."""


class ErrorKind(StrEnum):
    """Why a call was not answered; the value is what travels."""

    INVALID_INPUT = "INVALID_INPUT"
    """The caller's fault: a value is malformed, out of range, or not supported by the model."""
    INPUT_TOO_LARGE = "INPUT_TOO_LARGE"
    """The caller's fault: well-formed, but past a limit."""
    NOT_FOUND = "NOT_FOUND"
    """The caller names a model, collection, document or route that is not there."""
    ALREADY_EXISTS = "ALREADY_EXISTS"
    """The caller makes a thing that is there."""
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """The caller did not say, or could not prove, who it is."""
    FORBIDDEN = "FORBIDDEN"
    """The caller may not do this."""
    OVERLOADED = "OVERLOADED"
    """The service has more waiting than it can serve in time; nothing was begun."""
    RATE_LIMITED = "RATE_LIMITED"
    """The caller is past its own allowance; nothing was begun."""
    GPU_UNAVAILABLE = "GPU_UNAVAILABLE"
    """The configured device is not there. Trying again does not help."""
    UNREACHABLE = "UNREACHABLE"
    """No service answered, or it is not ready."""
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    """The client did not try, because recent calls found nobody."""
    DEADLINE = "DEADLINE"
    """The deadline passed first."""
    INTERNAL = "INTERNAL"
    """A defect of the service."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that was wrong."""

    field: str
    """Path of the field as the caller wrote it, for instance `texts[3]`."""
    description: str
    """What is wrong with it."""


class TorchlessError(Exception):
    """The one exception that crosses rooms: a kind, and a message for the caller.

    Args:
        kind: Why.
        message: What was wrong and what to change. Never a stack, a path or an address: it reaches the caller as it is.
        violations: The fields at fault, for `INVALID_INPUT` and `INPUT_TOO_LARGE`.
        retry_after_s: Seconds after which another try may succeed, where that is known.
        metadata: Further facts for programs, for instance `{"index": "3"}`; shown to the caller.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.violations = violations
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})

    def again(self) -> TorchlessError:
        """The same error as a new exception, to be raised for another caller.

        One exception raised many times would gather the traces, and so the requests, of everybody it was raised for.
        """
        return TorchlessError(
            self.kind,
            self.message,
            violations=self.violations,
            retry_after_s=self.retry_after_s,
            metadata=self.metadata,
        )

    def __repr__(self) -> str:
        return f"TorchlessError({self.kind.value}, {self.message!r})"


def invalid_input(field: str, description: str, **metadata: str) -> TorchlessError:
    """An `INVALID_INPUT` about one field; its message is `field: description`."""
    violation = FieldViolation(field, description)
    return TorchlessError(
        ErrorKind.INVALID_INPUT, f"{field}: {description}", violations=(violation,), metadata=metadata
    )


def input_too_large(field: str, description: str, **metadata: str) -> TorchlessError:
    """An `INPUT_TOO_LARGE` about one field; its message is `field: description`."""
    violation = FieldViolation(field, description)
    return TorchlessError(
        ErrorKind.INPUT_TOO_LARGE, f"{field}: {description}", violations=(violation,), metadata=metadata
    )


GRPC_STATUS: Mapping[ErrorKind, grpc.StatusCode] = {
    ErrorKind.INVALID_INPUT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.INPUT_TOO_LARGE: grpc.StatusCode.OUT_OF_RANGE,
    ErrorKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorKind.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    ErrorKind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorKind.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    ErrorKind.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.GPU_UNAVAILABLE: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    # A client's own state; the status it would have had, should one service report another's.
    ErrorKind.CIRCUIT_OPEN: grpc.StatusCode.UNAVAILABLE,
    ErrorKind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorKind.INTERNAL: grpc.StatusCode.INTERNAL,
}
"""The gRPC status of each kind; total."""

KIND_OF_GRPC_STATUS: Mapping[grpc.StatusCode, ErrorKind] = {
    grpc.StatusCode.INVALID_ARGUMENT: ErrorKind.INVALID_INPUT,
    grpc.StatusCode.OUT_OF_RANGE: ErrorKind.INPUT_TOO_LARGE,
    grpc.StatusCode.NOT_FOUND: ErrorKind.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: ErrorKind.ALREADY_EXISTS,
    grpc.StatusCode.UNAUTHENTICATED: ErrorKind.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: ErrorKind.FORBIDDEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorKind.OVERLOADED,
    grpc.StatusCode.FAILED_PRECONDITION: ErrorKind.GPU_UNAVAILABLE,
    grpc.StatusCode.UNAVAILABLE: ErrorKind.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorKind.DEADLINE,
    # A server cancels a call of its own accord only when it goes away.
    grpc.StatusCode.CANCELLED: ErrorKind.UNREACHABLE,
    # Statuses that no service of ours sends: whoever did is at fault, not the caller.
    grpc.StatusCode.ABORTED: ErrorKind.INTERNAL,
    grpc.StatusCode.DATA_LOSS: ErrorKind.INTERNAL,
    grpc.StatusCode.INTERNAL: ErrorKind.INTERNAL,
    grpc.StatusCode.UNIMPLEMENTED: ErrorKind.INTERNAL,
    grpc.StatusCode.UNKNOWN: ErrorKind.INTERNAL,
}
"""The kind of a status that came without `ErrorInfo`; total but for OK, which is no error."""

HTTP_STATUS: Mapping[ErrorKind, int] = {
    ErrorKind.INVALID_INPUT: 400,
    ErrorKind.INPUT_TOO_LARGE: 413,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.ALREADY_EXISTS: 409,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.OVERLOADED: 429,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.GPU_UNAVAILABLE: 503,
    ErrorKind.UNREACHABLE: 503,
    ErrorKind.CIRCUIT_OPEN: 503,
    ErrorKind.DEADLINE: 504,
    ErrorKind.INTERNAL: 500,
}
"""The HTTP status of each kind; total. An API family may answer INVALID_INPUT with 422 instead."""

CALLERS_FAULT = frozenset(
    {
        ErrorKind.INVALID_INPUT,
        ErrorKind.INPUT_TOO_LARGE,
        ErrorKind.NOT_FOUND,
        ErrorKind.ALREADY_EXISTS,
        ErrorKind.UNAUTHENTICATED,
        ErrorKind.FORBIDDEN,
    }
)
"""Kinds that the same call will meet again wherever it goes."""
