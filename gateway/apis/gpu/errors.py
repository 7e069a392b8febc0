"""The error body of the GPU API: OpenAI's, about leases instead of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.apis.openai.errors import openai_body
from gateway.apis.openai.schemas import ErrorAnswer
from gateway.http.error_family import PLAIN_STATUSES, ErrorFamily, plain_status
from torchless.contracts.errors import ErrorKind, TorchlessError


def _body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    """OpenAI's body; for a lease that has ended, the code says how it ended."""
    body = openai_body(error, status)
    reason = error.metadata.get("reason")
    if error.kind is ErrorKind.NOT_FOUND and reason in {"expired", "released"}:
        body = {"error": {**body["error"], "code": reason}}
    return body


GPU = ErrorFamily("GPUs", plain_status, _body, ErrorAnswer, (*PLAIN_STATUSES, 409))
