"""The two ways in which load reaches a service: gRPC through our client, and OpenAI's embeddings API over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.http_connection import HTTPConnection, request
from torchless.clients.embedding import EmbeddingClient

Vectors = NDArray[np.float32]
"""Shape (texts, dimensions)."""


class Sender(Protocol):
    """Sends prepared requests to one service."""

    async def send(self, lane: int, number: int) -> None:
        """Sends request `number` in `lane`, which has no other one in flight, and waits for the whole answer."""

    async def vectors(self, texts: Sequence[str]) -> Vectors:
        """The service's answer for `texts`, in one request."""

    async def close(self) -> None:
        """Closes the connections."""


class GRPCSender:
    """The embedding client, all lanes over its one channel, as the gateway uses it."""

    def __init__(self, address: str, requests: Sequence[Sequence[str]]) -> None:
        self._client = EmbeddingClient(address)
        self._requests = requests

    async def send(self, lane: int, number: int) -> None:
        """See `Sender`."""
        await self._client.embed(self._requests[number % len(self._requests)])

    async def vectors(self, texts: Sequence[str]) -> Vectors:
        """See `Sender`."""
        return (await self._client.embed(texts)).vectors

    async def close(self) -> None:
        """See `Sender`."""
        await self._client.close()


class HTTPSender:
    """OpenAI's embeddings API, one keep-alive connection a lane. Bodies are made before the clock runs."""

    def __init__(self, path: str, encoding: str, model: str, requests: Sequence[Sequence[str]]) -> None:
        self._path, self._encoding, self._model = path, encoding, model
        self._messages = [self._message(texts) for texts in requests]
        self._lanes: list[HTTPConnection] = []

    async def connect(self, port: int, lanes: int) -> None:
        """Opens the connections, on loopback."""
        self._lanes = [await HTTPConnection.open("127.0.0.1", port) for _ in range(lanes)]

    async def send(self, lane: int, number: int) -> None:
        """See `Sender`."""
        await self._answer(lane, self._messages[number % len(self._messages)])

    async def vectors(self, texts: Sequence[str]) -> Vectors:
        """See `Sender`."""
        answer = orjson.loads(await self._answer(0, self._message(texts)))
        return np.stack([_vector(item["embedding"]) for item in answer["data"]])

    async def close(self) -> None:
        """See `Sender`."""
        for connection in self._lanes:
            connection.close()

    async def _answer(self, lane: int, message: bytes) -> bytes:
        status, body = await self._lanes[lane].exchange(message)
        if status != 200:
            raise RuntimeError(f"answered with status {status}: {body[:300]!r}")
        return body

    def _message(self, texts: Sequence[str]) -> bytes:
        body = {"input": list(texts), "model": self._model, "encoding_format": self._encoding}
        return request("POST", self._path, orjson.dumps(body))


def _vector(embedding: Any) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32)
