"""How an API family answers errors: status, body and headers. Each family fills one in, in its `errors.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from gateway.http.exceptions import HTTPError, MalformedRequestError, UnreadBodyError
from torchless.contracts.errors import ErrorKind, TorchlessError


@dataclass(frozen=True, slots=True)
class ErrorFamily:
    """How one API family answers errors."""

    name: str
    """Its name in the OpenAPI document."""
    status: Callable[[TorchlessError], int]
    """The HTTP status of an error."""
    body: Callable[[TorchlessError, int], Mapping[str, Any]]
    """The JSON body of an error with its status."""
    schema: type[BaseModel]
    """The model of `body`, for the OpenAPI document."""
    statuses: tuple[int, ...]
    """All that `status` gives for routes with a JSON body, for the OpenAPI document."""

    @property
    def malformed_status(self) -> int:
        """The HTTP status of a request that cannot be parsed."""
        return self.status(MalformedRequestError(()))

    def answer(self, error: TorchlessError) -> Response:
        """The response for `error`; 429 and 503 have Retry-After in whole seconds, 401 has WWW-Authenticate."""
        status = self.status(error)
        sent = dict(error.headers) if isinstance(error, HTTPError) else {}
        if status in {429, 503}:
            sent["retry-after"] = str(max(1, math.ceil(error.retry_after_s or error.kind.policy.retry_after_s)))
        if status == 401:
            sent["www-authenticate"] = "Bearer"
        body = orjson.dumps(self.body(error, status), option=orjson.OPT_NON_STR_KEYS)
        return Response(body, status, sent, media_type="application/json")


def plain_status(error: TorchlessError) -> int:
    """The HTTP status of the error's kind, or of an `HTTPError`."""
    return error.status if isinstance(error, HTTPError) else error.kind.policy.http_status


def bad_request_status(error: TorchlessError) -> int:
    """As `plain_status`, but 400 for inputs that are too many or too long; 413 is only for the size of the body.

    OpenAI, Cohere and vLLM answer like that, and their clients have no class of error for 413.
    """
    is_input = error.kind is ErrorKind.INPUT_TOO_LARGE and not isinstance(error, UnreadBodyError)
    return 400 if is_input else plain_status(error)


PLAIN_STATUSES = (400, 404, 413, 415, 429, 500, 503, 504)
"""All that these two give for routes that embed or rerank, without those of authentication."""
