"""Errors that the HTTP side finds itself, where an API family answers them unlike others of their kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torchless.contracts.errors import ErrorKind, FieldViolation, Resource, ResourceType, TorchlessError, describe
from torchless.contracts.field_path import FieldPath


class UnreadBodyError(TorchlessError):
    """The body was not read to its end; the rest may still be on its way."""


def body_too_large(mib: float) -> UnreadBodyError:
    """The body is larger than the limit."""
    violations = (FieldViolation(("body",), f"is larger than {mib:g} MiB; send fewer or shorter inputs"),)
    return UnreadBodyError(ErrorKind.INPUT_TOO_LARGE, describe(violations), violations=violations)


def body_too_late() -> UnreadBodyError:
    """The deadline expired while the body was read."""
    return UnreadBodyError(ErrorKind.DEADLINE, "the deadline expired before the request's body arrived")


def body_memory_full() -> UnreadBodyError:
    """The bodies of other requests take the memory set aside for bodies."""
    return UnreadBodyError(
        ErrorKind.OVERLOADED,
        "the gateway is busy: its memory for request bodies is full; retry after the Retry-After delay",
        retry_after_s=1.0,
    )


class MalformedRequestError(TorchlessError):
    """The body or a header cannot be read as what the route takes."""

    def __init__(self, violations: tuple[FieldViolation, ...], message: str | None = None) -> None:
        super().__init__(ErrorKind.INVALID_INPUT, message or describe(violations), violations=violations)


def malformed(path: FieldPath | str, description: str) -> MalformedRequestError:
    """A `MalformedRequestError` about one field, given by its path or its name."""
    return MalformedRequestError((FieldViolation((path,) if isinstance(path, str) else path, description),))


class UndecodableBodyError(MalformedRequestError, UnreadBodyError):
    """The body does not decode as its Content-Encoding says."""

    def __init__(self) -> None:
        description = "does not match the body: the compressed data is damaged, incomplete or mostly empty"
        super().__init__((FieldViolation(("content-encoding",), description),))


class HTTPError(TorchlessError):
    """A request that HTTP itself refuses: every API family answers it with the same status.

    Args:
        status: The status.
        message: What is wrong, and what to change.
        header: Name of the request's header at fault; empty: none.
        headers: Headers of the response.
    """

    def __init__(
        self, status: int, message: str, *, header: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        violations = (FieldViolation((header,), message),) if header else ()
        super().__init__(ErrorKind.INVALID_INPUT, describe(violations) or message, violations=violations)
        self.status = status
        self.headers = headers or {}


class StalledBodyError(HTTPError, UnreadBodyError):
    """The client stopped sending the body."""

    def __init__(self, stall_s: float) -> None:
        super().__init__(408, f"nothing of the request's body arrived for {stall_s:g} s; send it faster")


def method_not_allowed(allowed: str) -> HTTPError:
    """The path exists, but not for this method; `allowed` lists its methods."""
    return HTTPError(405, f"this route supports only the methods {allowed}", headers={"allow": allowed})


def not_json() -> HTTPError:
    """The Content-Type is missing, or is not that of JSON."""
    message = "must be application/json (with curl: -H 'Content-Type: application/json')"
    return HTTPError(415, message, header="content-type", headers={"accept": "application/json"})


def unsupported_coding(supported: Sequence[str]) -> HTTPError:
    """The Content-Encoding is not among the `supported` ones."""
    message = f"must be {' or '.join(supported)}, or absent"
    return HTTPError(415, message, header="content-encoding", headers={"accept-encoding": ", ".join(supported)})


def unknown_route(path: str) -> TorchlessError:
    """No route has this path."""
    message = "there is no such route; GET /docs lists the routes"
    return TorchlessError(ErrorKind.NOT_FOUND, message, resource=Resource(ResourceType.ROUTE, path))


class GatewayDefectError(TorchlessError):
    """A defect of the gateway, not of a service; the log has the cause."""

    def __init__(self) -> None:
        super().__init__(ErrorKind.INTERNAL, "the gateway failed; find the request in its log by its x-request-id")
