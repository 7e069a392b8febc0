"""Around every call: readiness, our errors as gRPC statuses, metrics, and a log line for what went wrong with us."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from bentos.serving.calls import Context, abort
from bentos.serving.metrics import CALLS, call_metrics
from bentos.serving.readiness import Readiness
from bentos.serving.streams import ended_by
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)

_OURS = "/torchless."
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
        async def call(request: Any, context: Context) -> Any:
            async with self._observed(method, context):
                return await behaviour(request, context)

        return call

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._observed(method, context):
                answers = behaviour(request, context)
                if method in self._watches:
                    answers = ended_by(answers, self._not_ready())
                async for answer in answers:
                    yield answer

        return call

    async def _not_ready(self) -> None:
        """Raises, once the service is not ready, what a new call would hear."""
        await self._readiness.until(lambda: not self._readiness.ready)
        self._readiness.check()

    @asynccontextmanager
    async def _observed(self, method: str, context: Context) -> AsyncIterator[None]:
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
            await abort(context, error)
        except Exception as error:
            outcome = ErrorKind.INTERNAL.value
            logger.exception("%s failed", method)
            await abort(context, _INTERNAL, error)
        finally:
            in_flight.dec()
            CALLS.labels(method, outcome).inc()
            seconds.observe(time.monotonic() - started)
