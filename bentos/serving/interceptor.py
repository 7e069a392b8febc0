"""Wraps every call: readiness, errors as gRPC statuses, metrics, and a log line for internal errors."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

import grpc

from bentos.serving.calls import Context, abort
from bentos.serving.metrics import call_metrics, calls_metric
from bentos.serving.readiness import Readiness
from bentos.serving.streams import ended_by
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)

_OURS = "/torchless."
_INTERNAL = TorchlessError(ErrorKind.INTERNAL, "the service failed to process this request")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of our own services; leaves health checks and reflection alone.

    Args:
        readiness: Checked before each call.
        lost_device_is_final: As `Mount` has it.
        watches: As `Mount` has it.
    """

    def __init__(
        self, readiness: Readiness, *, lost_device_is_final: bool = True, watches: frozenset[str] = frozenset()
    ) -> None:
        self._readiness = readiness
        self._lost_device_is_final = lost_device_is_final
        self._watches = watches

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler for `details`, wrapped if it belongs to our service."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(_OURS):
            return handler
        method = details.method.rsplit("/", 1)[-1]
        for kind, wrap in _WRAPPERS.items():
            if (behaviour := getattr(handler, kind)) is not None:
                make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
                wrapped = wrap(self, method, behaviour)
                return make(wrapped, handler.request_deserializer, handler.response_serializer)  # type: ignore[no-any-return]
        return handler

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with self._observed(method, context):
                self._readiness.check()
                return await behaviour(request, context)

        return call

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._observed(method, context):
                self._readiness.check()
                answers = behaviour(request, context)
                if method in self._watches:
                    answers = ended_by(answers, self._not_ready())
                async for answer in answers:
                    yield answer

        return call

    async def _not_ready(self) -> None:
        """Waits until the service is not ready, then raises the error of a new call."""
        await self._readiness.until(lambda: not self._readiness.ready)
        self._readiness.check()

    def _observed(self, method: str, context: Context) -> _Observed:
        return _Observed(method, context, self._lost)

    def _lost(self, error: TorchlessError) -> None:
        if self._lost_device_is_final:
            self._readiness.fail(error)


_WRAPPERS: dict[str, Callable[[CallInterceptor, str, Any], Any]] = {
    "unary_unary": CallInterceptor._unary,
    "unary_stream": CallInterceptor._stream,
    "stream_unary": CallInterceptor._unary,
    "stream_stream": CallInterceptor._stream,
}


class _Observed:
    """Counts one call, and turns its error into a gRPC status.

    Args:
        method: The method's name, for metrics.
        context: The call.
        lost_device: Called with a GPU_UNAVAILABLE error.
    """

    __slots__ = ("_context", "_lost_device", "_method", "_started")

    def __init__(self, method: str, context: Context, lost_device: Callable[[TorchlessError], None]) -> None:
        self._method = method
        self._context = context
        self._lost_device = lost_device
        self._started = time.monotonic()

    async def __aenter__(self) -> None:
        call_metrics(self._method).in_flight.inc()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._end(error)
        finally:
            metrics = call_metrics(self._method)
            metrics.in_flight.dec()
            metrics.seconds.observe(time.monotonic() - self._started)
            calls_metric(self._method, _outcome(error)).inc()

    async def _end(self, error: BaseException | None) -> None:
        if isinstance(error, TorchlessError):
            if error.kind is ErrorKind.GPU_UNAVAILABLE:
                self._lost_device(error)
            await abort(self._context, error)
        if isinstance(error, Exception):
            logger.error("%s failed", self._method, exc_info=error)
            await abort(self._context, _INTERNAL, error)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "OK"
    if isinstance(error, TorchlessError):
        return error.kind.value
    # Only the cancellation of a call whose client disconnected is no Exception.
    return ErrorKind.INTERNAL.value if isinstance(error, Exception) else "CANCELLED"
