"""Around every call: readiness, our errors as gRPC statuses, metrics, and a log line for what went wrong with us."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc

from bentos.serving.metrics import CALLS, call_metrics
from bentos.serving.readiness import Readiness
from torchless.contracts.errors import GRPC_STATUS, ErrorKind, TorchlessError
from torchless.contracts.grpc_status import to_status

logger = logging.getLogger(__name__)

_OURS = "/torchless."
_LOOK_UP_S = 0.25
"""How often somebody who watches looks up whether the service leaves, in seconds."""
_END = object()
_INTERNAL = TorchlessError(ErrorKind.INTERNAL, "the service failed on this request")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of our own services; health and reflection pass untouched.

    Args:
        readiness: Asked before each call.
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
        """The handler for `details`, wrapped if it is ours."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(_OURS):
            return handler
        method = details.method.rsplit("/", 1)[-1]
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(method, handler.stream_stream), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(
            self._unary(method, handler.stream_unary), handler.request_deserializer, handler.response_serializer
        )

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._observed(method, context):
                return await behaviour(request, context)

        return call

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            async with self._observed(method, context):
                answers = behaviour(request, context)
                async for answer in self._while_ready(answers) if method in self._watches else answers:
                    yield answer

        return call

    async def _while_ready(self, answers: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
        """The answers until the service leaves; raises then what a new call would hear."""
        coming: asyncio.Future[Any] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(anext(answers, _END))
                while not (await asyncio.wait({coming}, timeout=_LOOK_UP_S))[0]:
                    self._readiness.check()
                answer = await coming
                if answer is _END:
                    return
                yield answer
                self._readiness.check()
        finally:
            if coming is not None and not coming.done():
                coming.cancel()
                await asyncio.wait({coming})
            await answers.aclose()

    @asynccontextmanager
    async def _observed(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        started = time.monotonic()
        outcome = "CANCELLED"  # what it stays when the caller hangs up
        in_flight, seconds = call_metrics(method)
        in_flight.inc()
        try:
            self._readiness.check()
            yield
            outcome = "OK"
        except TorchlessError as error:
            outcome = error.kind.value
            if error.kind is ErrorKind.GPU_UNAVAILABLE and self._lost_device_is_final:
                self._readiness.fail(error)
            await _abort(context, error)
        except Exception as error:
            outcome = ErrorKind.INTERNAL.value
            logger.exception("%s failed", method)
            await _abort(context, _INTERNAL, error)
        finally:
            in_flight.dec()
            CALLS.labels(method, outcome).inc()
            seconds.observe(time.monotonic() - started)


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], error: TorchlessError, cause: Exception | None = None
) -> NoReturn:
    trailer = (("grpc-status-details-bin", to_status(error).SerializeToString()),)
    try:
        await context.abort(GRPC_STATUS[error.kind], error.message, trailer)
    except grpc.aio.AbortError as aborted:
        raise aborted from cause
    raise AssertionError("abort returned")
