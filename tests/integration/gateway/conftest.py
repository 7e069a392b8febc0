"""The gateway over real HTTP in front of services over real gRPC, all in one event loop of this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.routing import Route

from gateway.settings import GatewaySettings
from gateway.worker import WorkerApp
from tests.integration.gateway.gpu_server import GPUServer
from tests.integration.gateway.reranking_server import RerankingServer
from torchless.cli.free_ports import free_port
from torchless.clients.sync import background
from torchless.clients.testing import EmbeddingService

HEADERS = "host: localhost\r\ncontent-type: application/json\r\n"
"""Headers of requests that a test writes to a socket."""
Gateway = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture(scope="session")
def _embedding_server() -> Iterator[EmbeddingService]:
    with EmbeddingService() as server:
        yield server


@pytest.fixture
def embedding(_embedding_server: EmbeddingService) -> Iterator[EmbeddingService]:
    """The embedding service; what a test sets on it is undone."""
    _embedding_server.reset()
    yield _embedding_server
    _embedding_server.reset()


@pytest.fixture(scope="session")
def _reranking_server() -> Iterator[RerankingServer]:
    with RerankingServer() as server:
        yield server


@pytest.fixture
def reranking(_reranking_server: RerankingServer) -> Iterator[RerankingServer]:
    """The reranking service; what a test sets on it is undone."""
    _reranking_server.reset()
    yield _reranking_server
    _reranking_server.reset()


@pytest.fixture(scope="session")
def _gpu_server() -> Iterator[GPUServer]:
    with GPUServer() as server:
        yield server


@pytest.fixture
def gpu(_gpu_server: GPUServer) -> Iterator[GPUServer]:
    """The GPU service with two devices and no leases; what a test changes is undone."""
    _gpu_server.settle(uuids={"GPU-a", "GPU-b"})
    yield _gpu_server
    _gpu_server.reset()
    _gpu_server.settle(uuids={"GPU-a", "GPU-b"})
    _gpu_server.release_all()


class _Server(uvicorn.Server):
    """Uvicorn on a free port, which opens and closes the application as the BentoML service does."""

    def __init__(self, settings: GatewaySettings, routes: Sequence[Route] = ()) -> None:
        self._routes = routes
        self._application = WorkerApp(settings)
        super().__init__(
            uvicorn.Config(
                self._application,
                http=self._application.connect,  # type: ignore[arg-type]
                lifespan="off",
                log_level="warning",
            )
        )
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._listening = asyncio.Event()

    async def open(self) -> str:
        """Its base URL, once it listens."""
        await self._application.open()
        assert self._application._app is not None
        self._application._app.router.routes.extend(self._routes)
        self._served = asyncio.create_task(self.serve(sockets=[self._socket]))
        await self._listening.wait()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening.set()

    async def close(self) -> None:
        """Once nothing of it is left."""
        self.should_exit = True
        await self._served
        await self._application.close()
        self._socket.close()


@pytest.fixture(scope="session")
def gateway() -> Gateway:
    """Starts gateways: `with gateway(limits={"items": 3}, embedding={"address": "..."}) as client`.

    Routes given by position are added to its own.

    Of reranking and GPUs there is none unless its address is given, and no cache unless it has settings.
    """

    @contextmanager
    def running(*routes: Route, **settings: Any) -> Iterator[httpx.Client]:
        for service in ("reranking", "gpu"):
            settings.setdefault(service, {"address": ""})
        # What tests provoke must reach the service, also when they ask for the same text again.
        settings.setdefault("cache", {"enabled": False})
        server = _Server(GatewaySettings(**settings), routes)
        url = background.current().run(server.open())
        try:
            # Of bodies that a test writes as bytes; a test that sends another type sets it.
            with httpx.Client(base_url=url, timeout=20, headers={"content-type": "application/json"}) as client:
                yield client
        finally:
            background.current().run(server.close())

    return running


@pytest.fixture(scope="session")
def _shared(
    _embedding_server: EmbeddingService, _reranking_server: RerankingServer, _gpu_server: GPUServer, gateway: Gateway
) -> Iterator[httpx.Client]:
    servers = {"embedding": _embedding_server, "reranking": _reranking_server, "gpu": _gpu_server}
    # One test's failures must not open a breaker before the next.
    breaker = {"failures": 1000}
    clients = {name: {"address": server.address, "breaker": breaker} for name, server in servers.items()}
    with gateway(**clients) as client:
        yield client


@pytest.fixture
def http(
    _shared: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer, gpu: GPUServer
) -> httpx.Client:
    """A client of a gateway with default settings in front of `embedding`, `reranking` and `gpu`."""
    return _shared


@pytest.fixture
def free_address() -> str:
    """An address without a listener."""
    return f"127.0.0.1:{free_port()}"
