"""Request bodies that arrive in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from starlette.requests import Request

from gateway.http.bodies import BodyLimit, BoundedBody
from torchless.clients.deadline import Deadline

MIB = 2**20


def body_of(limit: BodyLimit, bulkhead: str, size: int, chunk: int = MIB // 8) -> AbstractContextManager[BoundedBody]:
    """A body of `size` bytes that arrives in chunks, and then an empty last one."""

    def messages() -> Iterator[dict[str, Any]]:
        for start in range(0, size, chunk):
            yield {"type": "http.request", "body": bytes(min(chunk, size - start)), "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    arriving = messages()

    async def receive() -> dict[str, Any]:
        return next(arriving)

    return limit.body(Request({"type": "http", "headers": []}, receive), bulkhead, deadline=Deadline.NEVER)
