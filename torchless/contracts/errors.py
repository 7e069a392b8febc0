"""The closed list of error kinds, and the one table of what follows from each.

`ErrorKind` travels as the reason of a `google.rpc.ErrorInfo` in the trailing status (https://google.aip.dev/193),
because two kinds can share a gRPC status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

import grpc

from torchless.contracts.field_path import FieldPath, format_path

_MAX_RESOURCE_NAME = 200
ERROR_DOMAIN = "torchless"
"""Domain of the `google.rpc.ErrorInfo` that carries a kind."""
TOO_LATE = "too_late"
"""`metadata["reason"]` of an OVERLOADED that is about the caller's own deadline: the service has capacity, but would
not finish in time."""


class ErrorKind(StrEnum):
    """Why a call failed; the value is what travels."""

    INVALID_INPUT = "INVALID_INPUT"
    """The caller's fault: a value is malformed, out of range, or not supported by the model."""
    INPUT_TOO_LARGE = "INPUT_TOO_LARGE"
    """The caller's fault: well-formed, but past a limit."""
    NOT_FOUND = "NOT_FOUND"
    """The caller names something that does not exist; `TorchlessError.resource` says what."""
    ALREADY_EXISTS = "ALREADY_EXISTS"
    """The caller creates something that exists already."""
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """The caller sent no valid credentials."""
    FORBIDDEN = "FORBIDDEN"
    """The caller is known, but may not do this."""
    OVERLOADED = "OVERLOADED"
    """The service has more waiting than it can serve in time; it did not start the work."""
    RATE_LIMITED = "RATE_LIMITED"
    """The caller is past its own quota; the work was not started."""
    GPU_UNAVAILABLE = "GPU_UNAVAILABLE"
    """The configured device is missing. Retrying at the same service does not help."""
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    """The configured model cannot be loaded. Retrying at the same service does not help."""
    LOADING = "LOADING"
    """The service answers, but still loads its model or waits for what it needs. It is healthy and did not start the
    work."""
    UNREACHABLE = "UNREACHABLE"
    """No service answered, or it is shutting down."""
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    """The client did not call, because its recent calls reached no service."""
    DEADLINE = "DEADLINE"
    """The deadline passed first."""
    INTERNAL = "INTERNAL"
    """A defect of the service."""

    @property
    def policy(self) -> ErrorPolicy:
        """What follows from an error of this kind."""
        return _POLICIES[self]


class Retry(Enum):
    """Where a failed call may be tried again."""

    NOWHERE = "nowhere"
    """The same call would fail again."""
    ELSEWHERE = "elsewhere"
    """Once, at another endpoint."""
    ANYWHERE = "anywhere"
    """At any endpoint, after a pause."""


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What follows from an error of one kind: a row of the table."""

    grpc_status: grpc.StatusCode
    """The gRPC status that carries it."""
    http_status: int
    """The HTTP status. An API family may answer INVALID_INPUT with 422 instead of 400."""
    callers_fault: bool = False
    """Whether the same call fails wherever it goes."""
    retry: Retry = Retry.NOWHERE
    """Where the call may be tried again."""
    transient: bool = False
    """Whether the same call may succeed later, so that a program without a deadline can wait."""
    not_started: bool = False
    """Whether the service did nothing, so that even a call that must not run twice may be retried."""
    counts_for_breaker: bool = False
    """Whether it is a failure for the endpoint's circuit breaker."""
    endpoint_fault: bool = False
    """Whether load balancing treats the endpoint as slow because of it."""
    resumes_stream: bool = False
    """Whether a bulk stream goes on at another endpoint."""
    from_one_input: bool = False
    """Whether one of several inputs may have caused it, so that the other inputs are sent again separately."""
    shared: bool = False
    """Whether every request that waits for the same call (single flight) fails with it."""
    degrades: bool = False
    """Whether an optional capability is left out of the answer because of it."""
    service_down: bool = False
    """Whether it shows that the service is down, so that cached answers may be used."""
    retry_after_s: float = 1.0
    """Seconds after which a caller may try again, unless the error itself has a better hint."""


def _callers_fault(grpc_status: grpc.StatusCode, http_status: int) -> ErrorPolicy:
    return ErrorPolicy(grpc_status, http_status, callers_fault=True, from_one_input=True)


_UNAVAILABLE = ErrorPolicy(
    grpc.StatusCode.FAILED_PRECONDITION,
    503,
    retry=Retry.ELSEWHERE,
    endpoint_fault=True,
    resumes_stream=True,
    shared=True,
    degrades=True,
    service_down=True,
    # An operator, or an orchestrator that starts another process, must act first.
    retry_after_s=30.0,
)

_POLICIES: Mapping[ErrorKind, ErrorPolicy] = {
    ErrorKind.INVALID_INPUT: _callers_fault(grpc.StatusCode.INVALID_ARGUMENT, 400),
    ErrorKind.INPUT_TOO_LARGE: _callers_fault(grpc.StatusCode.OUT_OF_RANGE, 413),
    ErrorKind.NOT_FOUND: _callers_fault(grpc.StatusCode.NOT_FOUND, 404),
    ErrorKind.ALREADY_EXISTS: _callers_fault(grpc.StatusCode.ALREADY_EXISTS, 409),
    ErrorKind.UNAUTHENTICATED: _callers_fault(grpc.StatusCode.UNAUTHENTICATED, 401),
    ErrorKind.FORBIDDEN: _callers_fault(grpc.StatusCode.PERMISSION_DENIED, 403),
    ErrorKind.OVERLOADED: ErrorPolicy(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        429,
        retry=Retry.ELSEWHERE,
        transient=True,
        not_started=True,
        resumes_stream=True,
        shared=True,
        degrades=True,
    ),
    ErrorKind.RATE_LIMITED: ErrorPolicy(
        grpc.StatusCode.RESOURCE_EXHAUSTED, 429, retry=Retry.ELSEWHERE, transient=True, not_started=True
    ),
    ErrorKind.GPU_UNAVAILABLE: _UNAVAILABLE,
    ErrorKind.MODEL_UNAVAILABLE: _UNAVAILABLE,
    ErrorKind.LOADING: ErrorPolicy(
        grpc.StatusCode.UNAVAILABLE,
        503,
        # A retry within the deadline rarely outlasts the loading, so it goes only to an endpoint that is ready.
        retry=Retry.ELSEWHERE,
        transient=True,
        not_started=True,
        endpoint_fault=True,
        resumes_stream=True,
        shared=True,
        degrades=True,
        service_down=True,
        retry_after_s=2.0,
    ),
    ErrorKind.UNREACHABLE: ErrorPolicy(
        grpc.StatusCode.UNAVAILABLE,
        503,
        retry=Retry.ANYWHERE,
        transient=True,
        counts_for_breaker=True,
        endpoint_fault=True,
        resumes_stream=True,
        shared=True,
        degrades=True,
        service_down=True,
    ),
    # A client's own state; the gRPC status is for a service that reports another service's state.
    ErrorKind.CIRCUIT_OPEN: ErrorPolicy(
        grpc.StatusCode.UNAVAILABLE,
        503,
        transient=True,
        resumes_stream=True,
        shared=True,
        degrades=True,
        service_down=True,
    ),
    ErrorKind.DEADLINE: ErrorPolicy(
        grpc.StatusCode.DEADLINE_EXCEEDED, 504, transient=True, counts_for_breaker=True, degrades=True
    ),
    ErrorKind.INTERNAL: ErrorPolicy(
        grpc.StatusCode.INTERNAL, 500, endpoint_fault=True, from_one_input=True, shared=True, degrades=True
    ),
}

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
    # A server cancels a call on its own only when it shuts down.
    grpc.StatusCode.CANCELLED: ErrorKind.UNREACHABLE,
    # No service of ours sends these, so the sender is at fault, not the caller.
    grpc.StatusCode.ABORTED: ErrorKind.INTERNAL,
    grpc.StatusCode.DATA_LOSS: ErrorKind.INTERNAL,
    grpc.StatusCode.INTERNAL: ErrorKind.INTERNAL,
    grpc.StatusCode.UNIMPLEMENTED: ErrorKind.INTERNAL,
    grpc.StatusCode.UNKNOWN: ErrorKind.INTERNAL,
}
"""The kind of a status that came without `ErrorInfo`; total except for OK, which is no error."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that was wrong."""

    path: FieldPath
    """Path of the field as the caller wrote it, for instance `("texts", 3)`."""
    description: str
    """What is wrong with it."""

    @property
    def field(self) -> str:
        """The path as people read it, for instance `texts[3]`."""
        return format_path(self.path)


class ResourceType(StrEnum):
    """Type of the resource of a NOT_FOUND."""

    MODEL = "model"
    COLLECTION = "collection"
    DOCUMENT = "document"
    JOB = "job"
    LEASE = "lease"
    DEVICE = "device"
    ROUTE = "route"


@dataclass(frozen=True, slots=True)
class Resource:
    """The thing that a caller named."""

    type: ResourceType
    """Its type."""
    name: str
    """Its name, as the caller wrote it."""


class TorchlessError(Exception):
    """The one exception that crosses packages: a kind, and a message for the caller.

    Args:
        kind: Why the call failed.
        message: What was wrong and what to change. It reaches the caller unchanged, so it never holds a stack, a path
            or an address.
        violations: The fields at fault, for INVALID_INPUT and INPUT_TOO_LARGE.
        retry_after_s: Seconds after which a retry may succeed, if known.
        metadata: Further facts for programs, for instance `{"index": "3"}`; the caller sees them.
        resource: What was not found, for NOT_FOUND.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        resource: Resource | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.violations = violations
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})
        self.resource = resource

    def copy(self) -> TorchlessError:
        """The same error as a new exception, to raise for another caller.

        One exception object that is raised many times collects the tracebacks, and so the requests, of all its callers.
        """
        return self.with_paths(lambda path: path)

    def with_paths(self, rename: Callable[[FieldPath], FieldPath]) -> TorchlessError:
        """The same error about fields that the caller knows by other names.

        Args:
            rename: Gives the caller's path for each path of `violations`.
        """
        violations = tuple(FieldViolation(rename(each.path), each.description) for each in self.violations)
        is_about_fields = bool(violations) and self.message == describe(self.violations)
        return TorchlessError(
            self.kind,
            describe(violations) if is_about_fields else self.message,
            violations=violations,
            retry_after_s=self.retry_after_s,
            metadata=self.metadata,
            resource=self.resource,
        )

    def __repr__(self) -> str:
        return f"TorchlessError({self.kind.value}, {self.message!r})"


def describe(violations: tuple[FieldViolation, ...]) -> str:
    """The message of an error about `violations`: `field: description`, joined by semicolons."""
    return "; ".join(f"{each.field}: {each.description}" for each in violations)


def invalid_input(path: FieldPath | str, description: str, **metadata: str) -> TorchlessError:
    """An INVALID_INPUT about one field, given by its path or its name; the message is `field: description`."""
    return _about_field(ErrorKind.INVALID_INPUT, path, description, metadata)


def input_too_large(path: FieldPath | str, description: str, **metadata: str) -> TorchlessError:
    """An INPUT_TOO_LARGE about one field, given by its path or its name; the message is `field: description`."""
    return _about_field(ErrorKind.INPUT_TOO_LARGE, path, description, metadata)


def not_found(type: ResourceType, name: str, message: str, **metadata: str) -> TorchlessError:  # noqa: A002
    """A NOT_FOUND about one resource; of a long name, only the beginning is kept."""
    # gRPC trailers are small, and the name is whatever the caller sent.
    resource = Resource(type, name[:_MAX_RESOURCE_NAME])
    return TorchlessError(ErrorKind.NOT_FOUND, message, metadata=metadata, resource=resource)


def _about_field(
    kind: ErrorKind, path: FieldPath | str, description: str, metadata: Mapping[str, str]
) -> TorchlessError:
    violations = (FieldViolation((path,) if isinstance(path, str) else path, description),)
    return TorchlessError(kind, describe(violations), violations=violations, metadata=metadata)
