"""Wraps every call: readiness, errors as gRPC statuses, metrics, and a line in the log."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

import grpc

from bentos.serving.call_log import CallFacts, Describe, log_call
from bentos.serving.calls import Context, abort
from bentos.serving.messages import all_readable, lenient, readable, refusing_unreadable
from bentos.serving.metrics import call_metrics, calls_metric
from bentos.serving.readiness import Readiness
from bentos.serving.streams import ended_by
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import LogSettings

_OURS = "/torchless."
_DEFAULT_LOG = LogSettings()
_INTERNAL = TorchlessError(ErrorKind.INTERNAL, "the service failed to process this request")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of our own services. Others, such as reflection, only get their unreadable requests refused.

    Args:
        readiness: Checked before each call.
        lost_device_is_final: As `Mount` has it.
        watches: As `Mount` has it.
        log: Gives the settings in force that say which calls get a line in the log.
        describe: As `Mount` has it.
    """

    def __init__(
        self,
        readiness: Readiness,
        *,
        lost_device_is_final: bool = True,
        watches: frozenset[str] = frozenset(),
        log: Callable[[], LogSettings] = lambda: _DEFAULT_LOG,
        describe: Describe | None = None,
    ) -> None:
        self._readiness = readiness
        self._lost_device_is_final = lost_device_is_final
        self._watches = watches
        self._log = log
        self._describe = describe or _say_nothing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler for `details`, wrapped if it belongs to our service."""
        handler = await continuation(details)
        if handler is None:
            return None
        if not details.method.startswith(_OURS):
            return refusing_unreadable(handler)
        method = details.method.rsplit("/", 1)[-1]
        for kind, wrap in _WRAPPERS.items():
            if (behaviour := getattr(handler, kind)) is not None:
                make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
                wrapped = wrap(self, method, behaviour, all_readable if handler.request_streaming else readable)
                return make(wrapped, lenient(handler.request_deserializer), handler.response_serializer)  # type: ignore[no-any-return]
        return handler

    def _unary(self, method: str, behaviour: Any, check: _Check) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with self._observed(method, context) as facts:
                request = check(request)
                self._describe(facts, request)
                self._readiness.check()
                answer = await behaviour(request, context)
                self._describe(facts, answer)
                return answer

        return call

    def _stream(self, method: str, behaviour: Any, check: _Check) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._observed(method, context, is_stream=True) as facts:
                request = check(request)
                self._describe(facts, request)
                self._readiness.check()
                answers = behaviour(request, context)
                if method in self._watches:
                    answers = ended_by(answers, self._not_ready())
                async for answer in answers:
                    self._describe(facts, answer)
                    yield answer

        return call

    async def _not_ready(self) -> None:
        """Waits until the service is not ready, then raises the error of a new call."""
        await self._readiness.until(lambda: not self._readiness.ready)
        self._readiness.check()

    def _observed(self, method: str, context: Context, *, is_stream: bool = False) -> _Observed:
        def log(facts: CallFacts, error: BaseException | None, seconds: float) -> None:
            log_call(self._log(), context, method, facts, error, seconds=seconds, is_stream=is_stream)

        return _Observed(method, context, self._lost, log)

    def _lost(self, error: TorchlessError) -> None:
        if self._lost_device_is_final:
            self._readiness.fail(error)


_Check = Callable[[Any], Any]
_WRAPPERS: dict[str, Callable[[CallInterceptor, str, Any, _Check], Any]] = {
    "unary_unary": CallInterceptor._unary,
    "unary_stream": CallInterceptor._stream,
    "stream_unary": CallInterceptor._unary,
    "stream_stream": CallInterceptor._stream,
}


class _Observed:
    """Counts and logs one call, and turns its error into a gRPC status.

    Args:
        method: The method's name, for metrics.
        context: The call.
        lost_device: Called with a GPU_UNAVAILABLE error.
        log: Writes the call's line, from the facts about it, its error and its duration in seconds.
    """

    __slots__ = ("_context", "_facts", "_log", "_lost_device", "_method", "_started")

    def __init__(
        self,
        method: str,
        context: Context,
        lost_device: Callable[[TorchlessError], None],
        log: Callable[[CallFacts, BaseException | None, float], None],
    ) -> None:
        self._method = method
        self._context = context
        self._lost_device = lost_device
        self._log = log
        self._facts = CallFacts()
        self._started = time.monotonic()

    async def __aenter__(self) -> CallFacts:
        call_metrics(self._method).in_flight.inc()
        return self._facts

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._end(error)
        finally:
            seconds = time.monotonic() - self._started
            metrics = call_metrics(self._method)
            metrics.in_flight.dec()
            metrics.seconds.observe(seconds)
            calls_metric(self._method, _outcome(error)).inc()
            self._log(self._facts, error, seconds)

    async def _end(self, error: BaseException | None) -> None:
        if isinstance(error, TorchlessError):
            if error.kind is ErrorKind.GPU_UNAVAILABLE:
                self._lost_device(error)
            await abort(self._context, error)
        if isinstance(error, Exception):
            await abort(self._context, _INTERNAL, error)


def _say_nothing(facts: CallFacts, message: Any) -> None:
    """Of a service without a description of its messages."""


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "OK"
    if isinstance(error, TorchlessError):
        return error.kind.value
    # Only the cancellation of a call whose client disconnected is no Exception.
    return ErrorKind.INTERNAL.value if isinstance(error, Exception) else "CANCELLED"
