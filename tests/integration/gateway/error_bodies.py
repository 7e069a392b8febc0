"""The error body of each API family."""

from __future__ import annotations

import httpx


def message_of(family: str, answer: httpx.Response) -> str:
    """The message, once the body is seen to be the family's and to leak nothing."""
    body = answer.json()
    if family in {"openai", "vllm", "shared"}:
        assert set(body) == ({"error", "detail"} if family == "shared" else {"error"})
        assert set(body["error"]) == {"message", "type", "param", "code"}
        message = body["error"]["message"]
    elif family in {"tei", "undecided"}:
        assert set(body) == ({"error", "error_type", "detail"} if family == "undecided" else {"error", "error_type"})
        message = body["error"]
    else:
        assert set(body) == {"message", "detail"}
        message = body["message"]
    assert body.get("detail", message) == message
    assert isinstance(message, str)
    for leak in ("Traceback", "/site-packages", ".py", "127.0.0.1", "grpc", "pydantic"):
        assert leak not in answer.text
    assert answer.headers["x-request-id"]
    return message
