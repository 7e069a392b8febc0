"""The real bento in processes of its own, as an operator starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from torchless.clients.embedding import EmbeddingClient
from torchless.contracts.errors import TorchlessError

ROOT = Path(__file__).parents[3]
START_S = 60


@dataclass(frozen=True)
class Bento:
    """A running embedding bento."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(*, prefix: tuple[str, ...] = (), **environment: str) -> Iterator[Bento]:
    """Starts the bento on a free port; `environment` are its settings without the prefix."""
    port, metrics_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as home:
        settings = {f"TORCHLESS_EMBEDDING_{name.upper()}": value for name, value in environment.items()}
        settings.setdefault("TORCHLESS_EMBEDDING_METRICS_PORT", str(metrics_port))
        log = Path(home) / "log"
        command = [sys.executable, "-m", "bentoml", "serve-grpc", "bentos.embedding.service:svc"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--api-workers", "1", "--enable-reflection"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*prefix, *command],
                cwd=ROOT,
                env={**os.environ, "BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True", **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Bento(f"127.0.0.1:{port}", process, log, metrics_port)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)


async def until_health(client: EmbeddingClient, bento: Bento, *, ready: bool) -> None:
    """Waits until the service answers and says that it is (not) ready."""
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        if bento.process.poll() is not None:
            pytest.fail("the bento ended: " + bento.log.read_text())
        try:
            if await client.ready() is ready:
                return
        except TorchlessError:
            pass
        await asyncio.sleep(0.1)
    pytest.fail("the bento did not get ready: " + bento.log.read_text())


@pytest.fixture(scope="package")
def bento() -> Iterator[Bento]:
    """The bento with its default configuration."""
    with serving() as running:

        async def wait() -> None:
            async with EmbeddingClient(running.address) as client:
                await until_health(client, running, ready=True)

        asyncio.run(wait())
        yield running


@pytest.fixture
async def client(bento: Bento) -> AsyncIterator[EmbeddingClient]:
    """A client of the default bento."""
    async with EmbeddingClient(bento.address) as one:
        yield one
