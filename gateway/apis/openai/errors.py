"""OpenAI's error body: https://platform.openai.com/docs/guides/error-codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.apis.openai.schemas import ErrorAnswer
from gateway.http.error_family import PLAIN_STATUSES, ErrorFamily, bad_request_status
from torchless.contracts.errors import ErrorKind, ResourceType, TorchlessError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {
    ErrorKind.INPUT_TOO_LARGE: "request_too_large",
    ErrorKind.NOT_FOUND: "not_found",
    ErrorKind.ALREADY_EXISTS: "already_exists",
    ErrorKind.OVERLOADED: "overloaded",
    ErrorKind.RATE_LIMITED: "rate_limit_exceeded",
    ErrorKind.GPU_UNAVAILABLE: "gpu_unavailable",
    ErrorKind.MODEL_UNAVAILABLE: "model_unavailable",
    ErrorKind.LOADING: "model_loading",
    ErrorKind.UNREACHABLE: "service_unavailable",
    ErrorKind.CIRCUIT_OPEN: "service_unavailable",
    ErrorKind.DEADLINE: "timeout",
    ErrorKind.INTERNAL: "internal_error",
}


def openai_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    """The body of `error`; `param` is the first field at fault."""
    param = error.violations[0].field if error.violations else None
    code = _CODES.get(error.kind)
    if error.resource is not None and error.resource.type is ResourceType.MODEL:
        param, code = "model", "model_not_found"
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "param": param, "code": code}}


OPENAI = ErrorFamily("OpenAI", bad_request_status, openai_body, ErrorAnswer, PLAIN_STATUSES)
