"""Bodies as they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.http.body_limit import BodyReader

MIB = 2**20


async def read(reader: BodyReader, size: int, chunk: int = MIB // 8) -> bytes:
    """What `reader` reads of a body of `size` bytes that comes in chunks, and then says that it was all."""

    def messages() -> Iterator[dict[str, Any]]:
        for start in range(0, size, chunk):
            yield {"type": "http.request", "body": bytes(min(chunk, size - start)), "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    arriving = messages()

    async def receive() -> dict[str, Any]:
        return next(arriving)

    return await reader.read({"type": "http", "headers": []}, receive)
