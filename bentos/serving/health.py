"""Health checks (`grpc.health.v1`). Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from bentos.serving.calls import Context, abort
from bentos.serving.messages import refusing_unreadable
from bentos.serving.readiness import LEAVING, Readiness
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.grpc_status import HEALTH_REASON, to_status

_UNKNOWN = TorchlessError(ErrorKind.NOT_FOUND, "service: this server has no service with that name")


class Health:
    """The health of one service and of the whole server, which are the same.

    Replaces the servicer of grpcio-health-checking: its streams last until the end of the server's grace period, and
    when one watcher of a name disconnects, it forgets the others.

    Args:
        full_name: The gRPC service's full name; the empty name stands for the whole server.
        readiness: The state to report.
    """

    def __init__(self, full_name: str, readiness: Readiness) -> None:
        self._names = {full_name, ""}
        self._readiness = readiness

    async def check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """The status now, with its reason in the trailing metadata; NOT_FOUND for a name that is not ours."""
        if request.service not in self._names:
            await abort(context, _UNKNOWN)
        reason = self._readiness.reason
        if reason is not None:
            context.set_trailing_metadata(((HEALTH_REASON, to_status(reason).SerializeToString()),))
        return HealthCheckResponse(status=self._status(request.service))

    async def watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        """The status now and after every change. Ends with UNREACHABLE when the service shuts down."""
        sent: int | None = None

        def has_changed_or_ended() -> bool:
            return sent != self._status(request.service) or self._readiness.leaving

        while sent != self._status(request.service):
            sent = self._status(request.service)
            yield HealthCheckResponse(status=sent)
            await self._readiness.until(has_changed_or_ended)
        await abort(context, LEAVING)

    def _status(self, name: str) -> int:
        if name not in self._names:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._readiness.healthy else HealthCheckResponse.NOT_SERVING


class HealthInterceptor(grpc.aio.ServerInterceptor):
    """Answers `grpc.health.v1.Health` instead of the health servicer that BentoML adds.

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
            "/grpc.health.v1.Health/Check": refusing_unreadable(
                grpc.unary_unary_rpc_method_handler(health.check, **wire)
            ),
            "/grpc.health.v1.Health/Watch": refusing_unreadable(
                grpc.unary_stream_rpc_method_handler(health.watch, **wire)
            ),
        }

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Our handler for health checks, otherwise the next interceptor's."""
        return self._handlers.get(details.method) or await continuation(details)
