"""vLLM's error body, which is OpenAI's: `ErrorResponse` in vllm/entrypoints/openai/engine/protocol.py."""

from __future__ import annotations

from gateway.apis.openai.errors import openai_body
from gateway.apis.openai.schemas import ErrorAnswer
from gateway.http.error_family import PLAIN_STATUSES, ErrorFamily, bad_request_status

VLLM = ErrorFamily("vLLM", bad_request_status, openai_body, ErrorAnswer, PLAIN_STATUSES)
