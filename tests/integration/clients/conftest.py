"""Clients and services in the test's loop; whatever a test leaves behind is its failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.integration.clients.services import Service, Told
from tests.waiting import until
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.metrics import ClientMetrics
from torchless.clients.settings import ClientSettings

Serve = Callable[..., Any]
Connect = Callable[..., EmbeddingClient]


@pytest.fixture
def registry() -> CollectorRegistry:
    """Where the clients of the test show themselves."""
    return CollectorRegistry()


@pytest.fixture
async def _stack() -> AsyncIterator[AsyncExitStack]:
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        yield stack
    ours = {asyncio.current_task()}
    await until(lambda: asyncio.all_tasks() - ours <= before)


@pytest.fixture
def serve(_stack: AsyncExitStack) -> Serve:
    """Starts services: `a, b = await serve(2)`."""

    async def started(number: int, told: Told = Told.ALL) -> list[Service]:
        return [await _stack.enter_async_context(Service(told)) for _ in range(number)]

    return started


@pytest.fixture
def connect(_stack: AsyncExitStack, registry: CollectorRegistry) -> Connect:
    """Makes clients: `client = connect(a, b, retry={"attempts": 1})`. Without slow start."""
    metrics = ClientMetrics(registry)

    def connected(*places: Service | str, **settings: Any) -> EmbeddingClient:
        address = ",".join(each if isinstance(each, str) else each.address for each in places)
        options = {"slow_start_s": 0, "deadline_s": 10} | settings
        client = EmbeddingClient(ClientSettings(address=address, **options), metrics)
        _stack.push_async_callback(client.close)
        return client

    return connected
