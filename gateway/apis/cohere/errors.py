"""Cohere's error body: https://docs.cohere.com/reference/errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.apis.cohere.schemas import ErrorAnswer
from gateway.http.error_family import PLAIN_STATUSES, ErrorFamily, bad_request_status
from torchless.contracts.errors import TorchlessError


def _body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    # Jina's clients, which call the same routes, read `detail`.
    return {"message": error.message, "detail": error.message}


COHERE = ErrorFamily("Cohere", bad_request_status, _body, ErrorAnswer, PLAIN_STATUSES)
