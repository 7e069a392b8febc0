"""The gateway over real HTTP in front of an embedding service over real gRPC, both in this process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from gateway.deferred import DeferredApplication
from gateway.settings import GatewaySettings
from tests.integration.gateway.embedding_server import EmbeddingServer

Gateway = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture(scope="session")
def _embedding_server() -> Iterator[EmbeddingServer]:
    server = EmbeddingServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def embedding(_embedding_server: EmbeddingServer) -> Iterator[EmbeddingServer]:
    """The embedding service; what a test sets on it is undone."""
    _embedding_server.servicer.reset()
    _embedding_server.set_serving(True)
    yield _embedding_server
    _embedding_server.servicer.reset()
    _embedding_server.set_serving(True)


class _Server(uvicorn.Server):
    """Uvicorn in a thread, which opens and closes the application as the BentoML service does."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._application = DeferredApplication(settings)
        super().__init__(uvicorn.Config(self._application, lifespan="off", log_level="warning"))
        self._listening = threading.Event()
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        await self._application.open()
        await self.serve(sockets=[self.socket])
        await self._application.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening.set()

    def __enter__(self) -> str:
        self._thread.start()
        assert self._listening.wait(20)
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def __exit__(self, *raised: object) -> None:
        self.should_exit = True
        self._thread.join(20)
        self.socket.close()


@contextmanager
def _running(settings: dict[str, Any]) -> Iterator[httpx.Client]:
    with _Server(GatewaySettings(**settings)) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture(scope="session")
def gateway() -> Gateway:
    """Starts gateways: `with gateway(limits={"items": 3}, embedding={"address": "..."}) as client`."""
    return lambda **settings: _running(settings)


@pytest.fixture(scope="session")
def _shared(_embedding_server: EmbeddingServer, gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway(embedding={"address": _embedding_server.address}) as client:
        yield client


@pytest.fixture
def http(_shared: httpx.Client, embedding: EmbeddingServer) -> httpx.Client:
    """A client of a gateway with default settings in front of `embedding`."""
    return _shared


@pytest.fixture
def free_address() -> str:
    """An address on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"
