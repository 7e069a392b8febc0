"""Errors as each API family has them: status, body and headers. The only place that knows.

Bodies: OpenAI's https://platform.openai.com/docs/guides/error-codes, text-embeddings-inference's `ErrorResponse`
(router/src/lib.rs), Cohere's https://docs.cohere.com/reference/errors, vLLM's `ErrorResponse`
(vllm/entrypoints/openai/engine/protocol.py), infinity's (libs/infinity_emb/infinity_emb/fastapi_schemas/errors.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from gateway.faults import (
    EmptyInputError,
    GatewayDefectError,
    MalformedRequestError,
    MethodNotAllowedError,
    UnknownRouteError,
    UntokenizableInputError,
)
from gateway.schemas import cohere, openai, rerank, tei
from torchless.contracts.errors import HTTP_STATUS, ErrorKind, TorchlessError


@dataclass(frozen=True, slots=True)
class ErrorFamily:
    """How one API family answers errors."""

    name: str
    """For logs and the documentation."""
    status: Callable[[TorchlessError], int]
    """The HTTP status of an error."""
    body: Callable[[TorchlessError, int], Mapping[str, Any]]
    """The JSON body of an error with its status."""
    schema: type[BaseModel]
    """What `body` makes, for the API's description."""
    statuses: tuple[int, ...]
    """All that `status` gives for routes that embed, for the API's description."""

    def answer(self, error: TorchlessError, headers: Mapping[str, str] | None = None) -> Response:
        """The response for `error`; 429 and 503 carry Retry-After in whole seconds, 401 the scheme of the key."""
        status = self.status(error)
        sent = dict(headers or {})
        if status in {429, 503}:
            sent["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 1)))
        if status == 401:
            sent["www-authenticate"] = "Bearer"
        body = orjson.dumps(self.body(error, status), option=orjson.OPT_NON_STR_KEYS)
        return Response(body, status, sent, media_type="application/json")


def _plain_status(error: TorchlessError) -> int:
    return 405 if isinstance(error, MethodNotAllowedError) else HTTP_STATUS[error.kind]


_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_OPENAI_CODES = {
    ErrorKind.INPUT_TOO_LARGE: "request_too_large",
    ErrorKind.NOT_FOUND: "not_found",
    ErrorKind.ALREADY_EXISTS: "already_exists",
    ErrorKind.OVERLOADED: "overloaded",
    ErrorKind.RATE_LIMITED: "rate_limit_exceeded",
    ErrorKind.GPU_UNAVAILABLE: "gpu_unavailable",
    ErrorKind.UNREACHABLE: "service_unavailable",
    ErrorKind.CIRCUIT_OPEN: "service_unavailable",
    ErrorKind.DEADLINE: "timeout",
    ErrorKind.INTERNAL: "internal_error",
}


def _openai_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    param = error.violations[0].field if error.violations else None
    code = _OPENAI_CODES.get(error.kind)
    if error.kind is ErrorKind.NOT_FOUND and not isinstance(error, UnknownRouteError):
        param, code = "model", "model_not_found"
    kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "param": param, "code": code}}


def _gpu_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    """OpenAI's, for things that are not models; of a lease that was there once, the code says what became of it."""
    body = dict(_openai_body(error, status)["error"])
    if error.kind is ErrorKind.NOT_FOUND:
        reason = error.metadata.get("reason")
        body |= {"param": None, "code": reason if reason in {"expired", "released"} else "not_found"}
    return {"error": body}


def _tei_status(error: TorchlessError) -> int:
    if isinstance(error, MalformedRequestError | UntokenizableInputError):
        return 422
    if isinstance(error, EmptyInputError):
        return 400
    if error.kind is ErrorKind.INVALID_INPUT and not isinstance(error, MethodNotAllowedError):
        return 413
    if error.kind is ErrorKind.INTERNAL and not isinstance(error, GatewayDefectError):
        return 424
    return _plain_status(error)


_TEI_TYPES = {
    400: "Empty",
    401: "Validation",
    404: "Validation",
    405: "Validation",
    413: "Validation",
    424: "Backend",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
    504: "Backend",
}


def _tei_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    kind = "Tokenizer" if isinstance(error, UntokenizableInputError) else _TEI_TYPES.get(status, "Validation")
    return {"error": error.message, "error_type": kind}


def _untold_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    """text-embeddings-inference's, and Jina's `detail`."""
    return {**_tei_body(error, status), "detail": error.message}


def _cohere_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    # Jina's clients, which call the same routes, read `detail`.
    return {"message": error.message, "detail": error.message}


def _shared_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    """vLLM's and infinity's `error`, which is OpenAI's, and Jina's `detail`."""
    return {**_openai_body(error, status), "detail": error.message}


_PLAIN_STATUSES = (400, 401, 404, 413, 429, 500, 503, 504)
OPENAI = ErrorFamily("OpenAI", _plain_status, _openai_body, openai.ErrorAnswer, _PLAIN_STATUSES)
TEI = ErrorFamily(
    "text-embeddings-inference",
    _tei_status,
    _tei_body,
    tei.ErrorAnswer,
    (400, 401, 404, 413, 422, 424, 429, 500, 503, 504),
)
COHERE = ErrorFamily("Cohere", _plain_status, _cohere_body, cohere.ErrorAnswer, _PLAIN_STATUSES)
SHARED = ErrorFamily("Jina, vLLM and infinity", _plain_status, _shared_body, rerank.ErrorAnswer, _PLAIN_STATUSES)
"""Of `/rerank` with documents, which three APIs share."""
UNTOLD = ErrorFamily(
    "text-embeddings-inference, Jina, vLLM and infinity",
    _tei_status,
    _untold_body,
    rerank.UntoldErrorAnswer,
    TEI.statuses,
)
"""Of `/rerank` before its body says which API it speaks."""
VLLM = ErrorFamily("vLLM", _plain_status, _openai_body, openai.ErrorAnswer, _PLAIN_STATUSES)

GPU = ErrorFamily("GPUs", _plain_status, _gpu_body, openai.ErrorAnswer, (*_PLAIN_STATUSES, 409))


def family_of(path: str) -> ErrorFamily:
    """The family whose errors a path answers when no route of its own does."""
    if path.startswith("/v2/") or path in {"/v1/embed", "/v1/rerank"}:
        return COHERE
    if path == "/rerank":
        return UNTOLD
    if path in {"/score", "/v1/score"}:
        return VLLM
    if path.startswith("/v1/gpu/"):
        return GPU
    if path.startswith(("/v1/", "/embeddings", "/models")):
        return OPENAI
    return TEI
