"""The real status of a bidirectional stream.

When a call ends while a request is being written, grpc.aio replaces its status, before or after it arrives, by
INTERNAL ("Internal error from Core"). Source: `_write` in grpc/aio/_call.py, and the `set_internal_error` that it
calls, in 1.71.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

_WRITE_FAILED = "Internal error from Core"
_ARRIVES_WITHIN_S = 1.0


class CallStatus:
    """Records the status of one call.

    Args:
        call: A call that has just been made.
    """

    def __init__(self, call: Any) -> None:
        self._status: asyncio.Future[grpc.aio.AioRpcError] = asyncio.get_running_loop().create_future()
        call.add_done_callback(self._record)

    async def resolve(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The error that the call would have raised without the request that was being written."""
        if error.code() is not grpc.StatusCode.INTERNAL or error.details() != _WRITE_FAILED:
            return error
        await asyncio.wait({self._status}, timeout=_ARRIVES_WITHIN_S)
        if self._status.done() and self._status.result().code() is not grpc.StatusCode.OK:
            return self._status.result()
        # The call ended normally, or its status is not known; the request that was being written has no answer.
        return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, error.initial_metadata(), error.trailing_metadata())

    def _record(self, call: Any) -> None:
        """Called each time the call gets a status."""
        details = _result_of(call.details())
        if details == _WRITE_FAILED or self._status.done():
            return
        # Read at once: the status may be replaced in the next turn of the loop.
        code, initial, trailing = map(_result_of, (call.code(), call.initial_metadata(), call.trailing_metadata()))
        self._status.set_result(grpc.aio.AioRpcError(code, initial, trailing, details))


def _result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not have to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("a call that has ended does not know its status")
