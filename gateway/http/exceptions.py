"""Errors that the gateway itself finds, where an API family answers them unlike others of their kind."""

from __future__ import annotations

from torchless.contracts.errors import ErrorKind, FieldViolation, TorchlessError
from torchless.contracts.field_path import parse_path


class BodyTooLargeError(TorchlessError):
    """The caller's fault: the body is larger than the limit. The rest of it is still on the way."""

    def __init__(self, mib: float) -> None:
        violation = FieldViolation(("body",), f"is larger than {mib:g} MiB; send fewer or shorter inputs")
        super().__init__(ErrorKind.INPUT_TOO_LARGE, f"body: {violation.description}", violations=(violation,))


class BodyTooLateError(TorchlessError):
    """The caller's fault: its time was over before its body was there. The rest of it may still be on the way."""

    def __init__(self) -> None:
        super().__init__(ErrorKind.DEADLINE, "the request's body did not arrive within its time")


class NoRoomForBodyError(TorchlessError):
    """Nobody's fault: the bodies of other requests fill the memory set aside. The rest may still be on the way."""

    def __init__(self) -> None:
        super().__init__(ErrorKind.OVERLOADED, "the gateway is busy; try again shortly", retry_after_s=1.0)


class MalformedRequestError(TorchlessError):
    """The caller's fault: the body or a header cannot be read as what the route takes."""

    def __init__(self, message: str, violations: tuple[FieldViolation, ...] = ()) -> None:
        super().__init__(ErrorKind.INVALID_INPUT, message, violations=violations)


def malformed(field: str, description: str) -> MalformedRequestError:
    """A `MalformedRequestError` about one field; its message is `field: description`."""
    return MalformedRequestError(f"{field}: {description}", (FieldViolation(parse_path(field), description),))


class MethodNotAllowedError(TorchlessError):
    """The caller's fault: the route is there, but not for this method."""

    def __init__(self) -> None:
        super().__init__(ErrorKind.INVALID_INPUT, "this route does not answer this method; see the Allow header")


class UnknownRouteError(TorchlessError):
    """The caller's fault: nothing is served under this path."""

    def __init__(self) -> None:
        super().__init__(ErrorKind.NOT_FOUND, "there is no such route; GET /docs lists those that there are")


class GatewayDefectError(TorchlessError):
    """Our own fault, here and not in a service; the cause is in the log."""

    def __init__(self) -> None:
        super().__init__(ErrorKind.INTERNAL, "the gateway failed; its log names the request by its x-request-id")
