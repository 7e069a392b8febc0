"""How a stream in both directions really ended.

When a call ends while a request is being written, grpc.aio puts INTERNAL ("Internal error from Core") in the place of
its status, before that has come or after. Source: `_write` in grpc/aio/_call.py, and the `set_internal_error` that it
calls, in 1.71.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

_WRITING_FAILED = "Internal error from Core"
_COMES_WITHIN_S = 1.0


class Ending:
    """Hears the status of one call.

    Args:
        call: A call that has just been made.
    """

    def __init__(self, call: Any) -> None:
        self._status: asyncio.Future[grpc.aio.AioRpcError] = asyncio.get_running_loop().create_future()
        call.add_done_callback(self._hear)

    async def true(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """What `error` of the call would have been without the request that was being written."""
        if error.code() is not grpc.StatusCode.INTERNAL or error.details() != _WRITING_FAILED:
            return error
        await asyncio.wait({self._status}, timeout=_COMES_WITHIN_S)
        if self._status.done() and self._status.result().code() is not grpc.StatusCode.OK:
            return self._status.result()
        # It ended well, or nobody says how; what was being written has no answer.
        return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, error.initial_metadata(), error.trailing_metadata())

    def _hear(self, call: Any) -> None:
        """Called each time that the call is given a status."""
        details = _now(call.details())
        if details == _WRITING_FAILED or self._status.done():
            return
        # Read at once: it may have another by the next turn of the loop.
        code, initial, trailing = _now(call.code()), _now(call.initial_metadata()), _now(call.trailing_metadata())
        self._status.set_result(grpc.aio.AioRpcError(code, initial, trailing, details))


def _now(ready: Coroutine[Any, Any, Any]) -> Any:
    """The result of what need not wait."""
    try:
        ready.send(None)
    except StopIteration as stop:
        return stop.value
    ready.close()
    raise RuntimeError("a call that has ended does not know its status")
