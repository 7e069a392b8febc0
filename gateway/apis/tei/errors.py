"""The error body of text-embeddings-inference: `ErrorResponse` in its router/src/lib.rs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.apis.tei.schemas import ErrorAnswer
from gateway.capabilities.errors import EmptyInputError, UntokenizableInputError
from gateway.http.error_family import ErrorFamily, plain_status
from gateway.http.exceptions import GatewayDefectError, HTTPError, MalformedRequestError
from torchless.contracts.errors import ErrorKind, TorchlessError


class UnsupportedByModelError(TorchlessError):
    """The caller's fault: the served models cannot do what the route does."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.INVALID_INPUT, f"Backend error: {message}")


_TYPES = {
    400: "Empty",
    401: "Validation",
    403: "Validation",
    404: "Validation",
    405: "Validation",
    413: "Validation",
    415: "Validation",
    424: "Backend",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
    504: "Backend",
}


def tei_status(error: TorchlessError) -> int:
    """The HTTP status of `error`."""
    if isinstance(error, MalformedRequestError | UntokenizableInputError):
        return 422
    if isinstance(error, EmptyInputError):
        return 400
    if isinstance(error, UnsupportedByModelError):
        return 424
    if error.kind is ErrorKind.INVALID_INPUT and not isinstance(error, HTTPError):
        return 413
    if error.kind is ErrorKind.INTERNAL and not isinstance(error, GatewayDefectError):
        return 424
    return plain_status(error)


def tei_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    """The body of `error`."""
    kind = "Tokenizer" if isinstance(error, UntokenizableInputError) else _TYPES.get(status, "Validation")
    return {"error": error.message, "error_type": kind}


TEI = ErrorFamily(
    "text-embeddings-inference",
    tei_status,
    tei_body,
    ErrorAnswer,
    (400, 404, 413, 415, 422, 424, 429, 500, 503, 504),
)
