"""The error bodies of `/rerank`, which several APIs share.

Sources: infinity's libs/infinity_emb/infinity_emb/fastapi_schemas/errors.py; for the others see their own `errors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.apis.openai.errors import openai_body
from gateway.apis.rerank.schemas import ErrorAnswer, UndecidedErrorAnswer
from gateway.apis.tei.errors import TEI, tei_body, tei_status
from gateway.http.error_family import PLAIN_STATUSES, ErrorFamily, bad_request_status
from torchless.contracts.errors import TorchlessError


def _undecided_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    """text-embeddings-inference's body, and Jina's `detail`."""
    return {**tei_body(error, status), "detail": error.message}


def _documents_body(error: TorchlessError, status: int) -> Mapping[str, Any]:
    """vLLM's and infinity's `error`, which is OpenAI's, and Jina's `detail`."""
    return {**openai_body(error, status), "detail": error.message}


RERANK_UNDECIDED = ErrorFamily(
    "text-embeddings-inference, Jina, vLLM and infinity",
    tei_status,
    _undecided_body,
    UndecidedErrorAnswer,
    TEI.statuses,
)
"""Used until the body shows which API is meant."""
RERANK_DOCUMENTS = ErrorFamily(
    "Jina, vLLM and infinity", bad_request_status, _documents_body, ErrorAnswer, PLAIN_STATUSES
)
"""Used for a request with `documents`."""
