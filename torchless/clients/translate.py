"""gRPC's errors become ours here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from grpc_status import rpc_status

from torchless.contracts.errors import CALLERS_FAULT, KIND_OF_GRPC_STATUS, ErrorKind, TorchlessError
from torchless.contracts.grpc_status import from_status

_MESSAGES = {
    ErrorKind.UNREACHABLE: "the {capability} service does not answer; try again shortly",
    ErrorKind.DEADLINE: "the {capability} service did not answer within the deadline",
    ErrorKind.OVERLOADED: "the {capability} service is busy; try again shortly",
    ErrorKind.GPU_UNAVAILABLE: "the {capability} service has no device to run on",
    ErrorKind.INTERNAL: "the {capability} service failed",
}


@contextmanager
def our_errors(capability: str) -> Iterator[None]:
    """Raises `TorchlessError` in place of what gRPC raises inside.

    A status of our own services carries kind and message (`google.rpc.ErrorInfo`). Any other status gets the kind of
    its code and a message of ours, because gRPC's own texts hold addresses.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise translate(error, capability) from error
    except grpc.aio.UsageError as error:
        # The channel is closed: this process is going away, or the endpoint is gone from its settings.
        raise unreachable(capability) from error


def unreachable(capability: str) -> TorchlessError:
    """Nobody answers for `capability`."""
    return TorchlessError(ErrorKind.UNREACHABLE, _MESSAGES[ErrorKind.UNREACHABLE].format(capability=capability))


def out_of_time(capability: str) -> TorchlessError:
    """The deadline of a call to `capability` is over."""
    return TorchlessError(ErrorKind.DEADLINE, _MESSAGES[ErrorKind.DEADLINE].format(capability=capability))


def translate(error: grpc.aio.AioRpcError, capability: str) -> TorchlessError:
    """The error of ours that `error` stands for."""
    status = _rich_status(error)
    if status is not None:
        return status
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in (error.details() or ""):
        return TorchlessError(
            ErrorKind.INPUT_TOO_LARGE,
            f"the request or its answer is larger than one message to the {capability} service; send fewer inputs",
        )
    kind = KIND_OF_GRPC_STATUS.get(error.code(), ErrorKind.INTERNAL)
    if kind in CALLERS_FAULT:
        # Not one of ours, so it says nothing about what our caller did.
        kind = ErrorKind.INTERNAL
    return TorchlessError(kind, _MESSAGES[kind].format(capability=capability))


def _rich_status(error: grpc.aio.AioRpcError) -> TorchlessError | None:
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # the stub knows only sync calls
    except ValueError:  # the trailer contradicts the code: not one of ours
        return None
    return None if status is None else from_status(status)
