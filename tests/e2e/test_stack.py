"""The whole stack as a user starts it: the real bentos with their models behind the real gateway."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.conftest import missing
from tests.waiting import wait_until
from torchless.cli.orphans import still_running
from torchless.cli.services import StackSettings
from torchless.clients.embedding import EmbeddingClient

ROOT = Path(__file__).parents[2]
BENTOS_PYTHON = ROOT / ".venv/bentos/bin/python"
TEXTS = ("a short text", "Zürich, 東京, 🙂", "the same words " * 60, "x")
UP_WAIT_S = 180.0
STOP_WAIT_S = 90.0

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[bytes]
    output: Path
    gateway: str
    embedding: str


def torchless(*arguments: str, typed: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torchless.cli", *arguments]
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if not BENTOS_PYTHON.is_file():
        missing(f"{BENTOS_PYTHON} is not there: `make test` makes it")
    folder = tmp_path_factory.mktemp("stack")
    settings = StackSettings.on_free_ports(ROOT, folder, {}, metrics=True)
    options = ["--state", str(folder / "state")]
    ports = {**settings.ports, "gateway": settings.gateway_port, "metrics": settings.metrics_port}
    for name, port in ports.items():
        options += ["--port", f"{name}={port}"]
    output = folder / "output"
    with output.open("wb") as file:
        command = [sys.executable, "-m", "torchless.cli", "up", *options]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    running = Running(process, output, settings.gateway_url, settings.address("embedding"))
    try:
        wait_for("the stack is up", running)
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(STOP_WAIT_S)


def wait_for(text: str, running: Running, times: int = 1) -> None:
    def is_printed() -> bool:
        assert running.process.poll() is None, running.output.read_text()
        return running.output.read_text().count(text) >= times

    wait_until(is_printed, running.output.read_text, within_s=UP_WAIT_S)


def over_http(running: Running, texts: tuple[str, ...] = TEXTS) -> NDArray[np.float32]:
    answer = httpx.post(f"{running.gateway}/v1/embeddings", json={"input": list(texts)}, timeout=60)
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], dtype=np.float32)


def over_grpc(running: Running, texts: tuple[str, ...] = TEXTS) -> NDArray[np.float32]:
    async def ask() -> NDArray[np.float32]:
        async with EmbeddingClient(running.embedding) as client:
            return (await client.embed(list(texts))).vectors

    return asyncio.run(ask())


def test_up_prints_every_address_and_when_each_service_is_ready(stack: Running) -> None:
    printed = stack.output.read_text()

    assert stack.gateway in printed
    assert stack.embedding in printed
    for service in ("gpu", "embedding", "reranking", "gateway"):
        assert f"{service} is ready after" in printed


def test_the_gateway_returns_the_vectors_of_the_bento(stack: Running) -> None:
    http, grpc = over_http(stack), over_grpc(stack)

    assert http.shape == grpc.shape == (len(TEXTS), 384)
    assert np.linalg.norm(http, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.sum(http * grpc, axis=1).min() >= 0.99999


def test_embed_prints_the_same_vectors_by_gateway_and_by_grpc(stack: Running) -> None:
    by_gateway = torchless("embed", "--json", "--gateway", stack.gateway, *TEXTS[:2])
    by_grpc = torchless("embed", "--json", "--address", stack.embedding, typed="\n".join(TEXTS[:2]) + "\n")

    assert by_gateway.returncode == by_grpc.returncode == 0, by_gateway.stderr + by_grpc.stderr
    left, right = ([json.loads(line) for line in done.stdout.splitlines()] for done in (by_gateway, by_grpc))
    assert [row["text"] for row in left] == [row["text"] for row in right] == list(TEXTS[:2])
    assert np.allclose([row["vector"] for row in left], [row["vector"] for row in right], atol=1e-6)


def test_rerank_prints_the_best_document_first(stack: Running) -> None:
    documents = ["The harbour froze.", "Yeast makes dough rise."]
    done = torchless("rerank", "--json", "--gateway", stack.gateway, "Why does bread rise?", *documents)

    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["index"], row["document"]) for row in rows] == [(1, documents[1]), (0, documents[0])]
    assert 1 >= rows[0]["score"] > rows[1]["score"] >= 0


def test_rerank_prints_the_refusal_of_the_service(stack: Running) -> None:
    refused = torchless("rerank", "--model", "nobody/nothing", "--gateway", stack.gateway, "a question", "a text")

    assert refused.returncode == 1
    assert "nobody/nothing" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_embed_prints_the_refusal_of_the_service(stack: Running) -> None:
    refused = torchless("embed", "--model", "nobody/nothing", "--gateway", stack.gateway, "a text")

    assert refused.returncode == 1
    assert "nobody/nothing" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_status_shows_every_service_as_ready(stack: Running) -> None:
    shown = torchless("status", "--gateway", stack.gateway)

    assert shown.returncode == 0, shown.stderr
    assert all(service in shown.stdout for service in ("embedding", "reranking", "gpu"))
    assert "not ready" not in shown.stdout


def test_no_breaker_opens_while_the_services_load(stack: Running) -> None:
    shown = torchless("status", "--gateway", stack.gateway)

    assert shown.stdout.count("breaker closed") == 3
    assert "opened" not in shown.stdout


def test_a_bento_that_dies_is_replaced(stack: Running) -> None:
    dead = service(stack, "bentos.embedding.service:svc")
    assert dead.children(recursive=True) == []  # one process: its end is the end of the service
    dead.kill()
    wait_for("embedding died (terminated by SIGKILL; ", stack)
    wait_for("embedding is ready after", stack, times=2)

    assert service(stack, "bentos.embedding.service:svc").pid != dead.pid
    assert over_http(stack).shape == (len(TEXTS), 384)


def test_sigterm_stops_every_process(stack: Running) -> None:
    family = psutil.Process(stack.process.pid).children(recursive=True)
    assert {"supervisor.supervisord", "serve", "serve-grpc"} <= {word for p in family for word in p.cmdline()}
    stack.process.send_signal(signal.SIGTERM)

    assert stack.process.wait(STOP_WAIT_S) == 0
    assert not still_running(family, STOP_WAIT_S)
    assert stack.output.read_text().rstrip().endswith("stopped")
    done = torchless("status", "--gateway", stack.gateway)
    assert done.returncode == 1
    assert "torchless up" in done.stderr


def service(running: Running, command: str) -> psutil.Process:
    """The process that supervisord started with `command`."""
    supervisord = psutil.Process(running.process.pid).children()[0]
    return next(process for process in supervisord.children() if command in process.cmdline())
