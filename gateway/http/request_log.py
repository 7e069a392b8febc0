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
from torchless.telemetry.request_log import RequestLog, add_outcome, model_name, trace_id

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
    # Without a context, the request was refused before its headers were read.
    traceparent = Headers(scope=scope).get(TRACEPARENT_KEY, "") if context is None else context.traceparent
    about = Provenance() if context is None else context.provenance
    fields = {
        "request_id": request_id,
        "trace_id": traceparent and trace_id(traceparent),
        "tenant": None if principal is None else principal.tenant,
        "method": method,
        "route": route,
        "model": about.model and model_name(about.model),
        "items": about.items,
        "tokens": about.tokens,
        "cache": about.cache_result,
        "degraded": about.degraded,
        "shared_with": about.shared_with,
        "status": status,
    }
    add_outcome(fields, error, about.timings, total_s)
    _log.write(level, fields, None if isinstance(error, TorchlessError) else error)
