"""Answers given after the signal to leave end their connections."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from gateway.settings import GatewaySettings
from gateway.worker import WorkerApp

NUMBER = signal.SIGUSR1


@pytest.fixture
def received() -> Iterator[list[int]]:
    """What a handler that was there before has received."""
    numbers: list[int] = []
    before = signal.signal(NUMBER, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(NUMBER, before)


async def test_answers_after_the_signal_close_their_connection(received: list[int]) -> None:
    application = WorkerApp(GatewaySettings())
    await application.open()
    application.draining.watch(NUMBER)
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert "connection" not in (await http.get("/health/live")).headers
        os.kill(os.getpid(), NUMBER)
        for path in ("/health/live", "/nope"):
            assert (await http.get(path)).headers["connection"] == "close"
    await application.close()
    assert received == [NUMBER]
