"""Reads the metadata and deadline of a gRPC call, and writes timings and errors."""

from __future__ import annotations

import time
from typing import Any, NoReturn

import grpc

from torchless.contracts.errors import TorchlessError
from torchless.contracts.grpc_status import to_status
from torchless.contracts.types.v1.types_pb2 import Timings

Context = grpc.aio.ServicerContext[Any, Any]


def metadata(context: Context) -> dict[str, str]:
    """The call's metadata as text; of a key that occurs twice, the last value."""
    return {
        key: value if isinstance(value, str) else value.decode("ascii", "replace")
        for key, value in context.invocation_metadata() or ()
    }


def tenant(context: Context) -> str:
    """The caller's tenant; empty when the call names none."""
    return metadata(context).get("x-tenant-id", "")


def expires_at(context: Context) -> float | None:
    """The call's deadline, as `time.monotonic()`; None: it has none."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


def timings(*, queue_s: float, tokenization_s: float, inference_s: float, started: float) -> Timings:
    """Timings in seconds as a message; `started` is the `time.monotonic()` at which the request arrived."""
    return Timings(
        queue_ms=queue_s * 1000,
        tokenization_ms=tokenization_s * 1000,
        inference_ms=inference_s * 1000,
        total_ms=(time.monotonic() - started) * 1000,
    )


async def abort(context: Context, error: TorchlessError, cause: Exception | None = None) -> NoReturn:
    """Ends the call with `error`: its message for people, and its details for programs."""
    trailer = (("grpc-status-details-bin", to_status(error).SerializeToString()),)
    try:
        await context.abort(error.kind.policy.grpc_status, error.message, trailer)
    except grpc.aio.AbortError as aborted:
        raise aborted from cause
    raise AssertionError("abort returned")
