"""`grpc.health.v1`: what is said of the service to those who ask and to those who watch.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from bentos.serving.calls import Context, abort
from bentos.serving.readiness import LEAVING, Readiness
from torchless.contracts.errors import ErrorKind, TorchlessError

_UNKNOWN = TorchlessError(ErrorKind.NOT_FOUND, "service: no service of that name is here")


class Health:
    """The health of one service and of the whole server, which are the same.

    Stands in for the servicer of grpcio-health-checking: that one's streams do not end before the server's grace period
    does, and when one of those who watch a name hangs up, it forgets the others.

    Args:
        full_name: The gRPC service's full name; the whole is the empty name.
        readiness: What is told.
    """

    def __init__(self, full_name: str, readiness: Readiness) -> None:
        self._names = {full_name, ""}
        self._readiness = readiness

    async def check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """The status now; NOT_FOUND for a name that is not ours."""
        if request.service not in self._names:
            await abort(context, _UNKNOWN)
        return HealthCheckResponse(status=self._status(request.service))

    async def watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        """The status now and after every change, until the service leaves; ends then with UNREACHABLE."""
        told: int | None = None

        def is_news_or_over() -> bool:
            return told != self._status(request.service) or self._readiness.leaving

        while told != self._status(request.service):
            told = self._status(request.service)
            yield HealthCheckResponse(status=told)
            await self._readiness.until(is_news_or_over)
        await abort(context, LEAVING)

    def _status(self, name: str) -> int:
        if name not in self._names:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._readiness.healthy else HealthCheckResponse.NOT_SERVING


class HealthInterceptor(grpc.aio.ServerInterceptor):
    """Answers `grpc.health.v1.Health` in the place of whoever was put on the server for it.

    Args:
        full_name: As `Health` has it.
        readiness: As `Health` has it.
    """

    def __init__(self, full_name: str, readiness: Readiness) -> None:
        health = Health(full_name, readiness)
        wire: Any = {
            "request_deserializer": HealthCheckRequest.FromString,
            "response_serializer": HealthCheckResponse.SerializeToString,
        }
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "/grpc.health.v1.Health/Check": grpc.unary_unary_rpc_method_handler(health.check, **wire),
            "/grpc.health.v1.Health/Watch": grpc.unary_stream_rpc_method_handler(health.watch, **wire),
        }

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Ours for health, else the next one's."""
        return self._handlers.get(details.method) or await continuation(details)
