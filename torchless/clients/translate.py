"""Translates errors of gRPC to ours, in this file only."""

from __future__ import annotations

import grpc
from grpc_status import rpc_status

from torchless.contracts.errors import KIND_OF_GRPC_STATUS, ErrorKind, TorchlessError
from torchless.contracts.grpc_status import from_status

_MESSAGES = {
    ErrorKind.UNREACHABLE: "the {capability} service cannot be reached; retry shortly",
    ErrorKind.DEADLINE: "the {capability} service did not answer within the deadline",
    ErrorKind.OVERLOADED: "the {capability} service is overloaded; retry shortly",
    ErrorKind.GPU_UNAVAILABLE: "the GPU of the {capability} service is not available",
    ErrorKind.INTERNAL: "the {capability} service failed",
}


def unreachable(capability: str) -> TorchlessError:
    """No endpoint of the service answers."""
    return TorchlessError(ErrorKind.UNREACHABLE, _MESSAGES[ErrorKind.UNREACHABLE].format(capability=capability))


def no_reason(capability: str) -> TorchlessError:
    """The service answers, is not ready, and does not say why."""
    return TorchlessError(
        ErrorKind.UNREACHABLE, f"the {capability} service is up, but not ready; its log has the reason"
    )


def out_of_time(capability: str) -> TorchlessError:
    """The deadline of a call to the service has passed."""
    return TorchlessError(ErrorKind.DEADLINE, _MESSAGES[ErrorKind.DEADLINE].format(capability=capability))


def translate(error: grpc.aio.AioRpcError, capability: str) -> TorchlessError:
    """The error of ours that `error` stands for.

    A status of our services carries the kind and the message (`google.rpc.ErrorInfo`). Any other status gets the kind
    of its code and a message of ours, because gRPC's own messages contain addresses.
    """
    status = _rich_status(error)
    if status is not None:
        return status
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in (error.details() or ""):
        return TorchlessError(
            ErrorKind.INPUT_TOO_LARGE,
            f"the request to the {capability} service or its answer exceeds the message limit; send fewer inputs",
        )
    kind = KIND_OF_GRPC_STATUS.get(error.code(), ErrorKind.INTERNAL)
    if kind.policy.callers_fault:
        # The status is not from one of our services, so it says nothing about what the caller did.
        kind = ErrorKind.INTERNAL
    return TorchlessError(kind, _MESSAGES[kind].format(capability=capability))


def _rich_status(error: grpc.aio.AioRpcError) -> TorchlessError | None:
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # the stub knows only sync calls
    except ValueError:  # the trailer contradicts the code, so it is not from one of our services
        return None
    return None if status is None else from_status(status)
