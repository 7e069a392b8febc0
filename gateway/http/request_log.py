"""The line that each HTTP request has in the log; docs/logs.md describes its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.capabilities.request import Provenance, RequestContext
from gateway.http.identity import Principal
from torchless.clients.call import TRACEPARENT_KEY
from torchless.contracts.errors import TorchlessError
from torchless.settings import LogSettings
from torchless.telemetry.request_log import RequestLog, error_fields, model_name, present, timing_fields, trace_id

_log = RequestLog("request")


def log_request(
    scope: Scope, *, method: str, route: str, status: int, begun_s: float, total_s: float, is_routine: bool
) -> None:
    """Writes the line of the request in `scope`, unless it is sampled away.

    Args:
        scope: The request, after it was answered.
        method: Its method.
        route: The template of its route.
        status: The status of its response.
        begun_s: Time until the response began, in seconds.
        total_s: Time until the response ended, in seconds.
        is_routine: Whether it is for health, metrics or documentation.
    """
    state: Mapping[str, Any] = scope["state"]
    settings: LogSettings = scope["app"].state.services.settings.log
    request_id: str = state["request_id"]
    level = _log.level(settings, (request_id,), status, begun_s, is_routine=is_routine)
    if not level:
        return
    context: RequestContext | None = state.get("context")
    principal: Principal | None = state.get("principal")
    error: Exception | None = state.get("error")
    fields = {
        "request_id": request_id,
        "trace_id": trace_id(Headers(scope=scope).get(TRACEPARENT_KEY, "")),
        "tenant": None if principal is None else principal.tenant,
        "method": method,
        "route": route,
        **_provenance_fields(Provenance() if context is None else context.provenance),
        "status": status,
        **error_fields(error),
        "total_ms": round(total_s * 1000, 3),
    }
    _log.write(level, present(fields), None if isinstance(error, TorchlessError) else error)


def _provenance_fields(of: Provenance) -> dict[str, Any]:
    times = of.timings
    return {
        "model": model_name(of.model),
        "items": of.items,
        "tokens": of.tokens,
        "cache": of.cache_result,
        "degraded": of.degraded,
        "shared_with": of.shared_with,
        **timing_fields(times.queue_ms, times.tokenization_ms, times.inference_ms),
    }
