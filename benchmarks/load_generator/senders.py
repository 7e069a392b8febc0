"""Sends requests to a service, over gRPC by our clients or over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.data.inputs import Request
from benchmarks.load_generator.apis import API, api_named
from benchmarks.load_generator.drive import Sends
from benchmarks.load_generator.http_connection import HTTPConnection, request_bytes
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.reranking import RerankingClient, RerankOptions, ScoreForm
from torchless.clients.settings import ClientSettings

Answer = NDArray[np.float32]
"""Vectors, shape (texts, dimensions), or raw scores, shape (documents, 1)."""
_DEADLINE_S = 60.0
"""The gateway's deadline for reranking."""


class Sender(Sends, Protocol):
    """Sends prepared requests to one service."""

    async def answer(self, request: Request) -> Answer:
        """Sends one request and reads its answer."""

    async def close(self) -> None:
        """Closes the connections."""


async def open_sender(target: dict[str, Any], requests: Sequence[Request], connections: int) -> Sender:
    """Opens a sender for one of the targets below."""
    if target["protocol"] == "http":
        sender = HTTPSender(target["path"], api_named(target["api"]), target["model"], requests)
        await sender.connect(target["port"], connections)
        return sender
    address = f"127.0.0.1:{target['port']}"
    if target["capability"] == "embedding":
        return EmbeddingSender(address, requests)
    return RerankingSender(address, target["model"], requests)


def over_grpc(capability: str, port: int, model: str = "") -> dict[str, Any]:
    """Target: the `embedding` or `reranking` service, by our client; empty model: the service's default model."""
    return {"protocol": "grpc", "capability": capability, "port": port, "model": model}


def over_http(api: str, port: int, path: str, model: str) -> dict[str, Any]:
    """Target: an HTTP API at `path`; `api` is one of the names in `benchmarks.load_generator.apis`."""
    return {"protocol": "http", "api": api, "port": port, "path": path, "model": model}


class EmbeddingSender:
    """The embedding client, which sends all requests over one channel, as in the gateway."""

    def __init__(self, address: str, requests: Sequence[Request]) -> None:
        self._client = EmbeddingClient(address)
        self._requests = requests

    async def send(self, connection: int, number: int) -> None:
        """See `Sender`."""
        await self._client.embed(self._requests[number % len(self._requests)].texts)

    async def answer(self, request: Request) -> Answer:
        """See `Sender`."""
        return (await self._client.embed(request.texts)).vectors

    async def close(self) -> None:
        """See `Sender`."""
        await self._client.close()


class RerankingSender:
    """The reranking client, as in the gateway."""

    def __init__(self, address: str, model: str, requests: Sequence[Request]) -> None:
        self._client = RerankingClient(ClientSettings(address=address, deadline_s=_DEADLINE_S))
        self._options = RerankOptions(model=model, score_form=ScoreForm.RAW)
        self._requests = requests

    async def send(self, connection: int, number: int) -> None:
        """See `Sender`."""
        request = self._requests[number % len(self._requests)]
        await self._client.rerank(request.query, request.texts, self._options)

    async def answer(self, request: Request) -> Answer:
        """See `Sender`."""
        found = await self._client.rerank(request.query, request.texts, self._options)
        return found.queries[0].scores[:, np.newaxis]

    async def close(self) -> None:
        """See `Sender`."""
        await self._client.close()


class HTTPSender:
    """An HTTP API over keep-alive connections, one request at a time on each. Bodies are made before the window."""

    def __init__(self, path: str, api: API, model: str, requests: Sequence[Request]) -> None:
        self._path, self._api, self._model = path, api, model
        self._messages = [self._message(request) for request in requests]
        self._connections: list[HTTPConnection] = []

    async def connect(self, port: int, connections: int) -> None:
        """Opens the connections, on loopback."""
        self._connections = [await HTTPConnection.open("127.0.0.1", port) for _ in range(connections)]

    async def send(self, connection: int, number: int) -> None:
        """See `Sender`."""
        await self._exchange(connection, self._messages[number % len(self._messages)])

    async def answer(self, request: Request) -> Answer:
        """See `Sender`."""
        return self._api.read(orjson.loads(await self._exchange(0, self._message(request))))

    async def close(self) -> None:
        """See `Sender`."""
        for connection in self._connections:
            connection.close()

    async def _exchange(self, connection: int, message: bytes) -> bytes:
        status, body = await self._connections[connection].exchange(message)
        if status != 200:
            raise RuntimeError(f"answered with status {status}: {body[:300]!r}")
        return body

    def _message(self, request: Request) -> bytes:
        return request_bytes("POST", self._path, orjson.dumps(self._api.body(request, self._model)))
