"""The gateway as BentoML builds and serves it, in separate processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.gateway.conftest import HEADERS
from tests.integration.gateway.served import ROOT, environment, served
from tests.waiting import wait_until
from torchless.clients.testing import EmbeddingService, vector_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BentoML's home, of this module alone."""
    return tmp_path_factory.mktemp("bentoml")


@pytest.fixture(scope="module")
def bento(home: Path) -> Path:
    """The folder of a freshly built bento."""
    subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--version", "test", "."],
        cwd=ROOT,
        env=environment(home),
        check=True,
        capture_output=True,
        timeout=120,
    )
    return home / "bentos" / "torchless-gateway" / "test"


def test_built_bento_serves_embeddings(bento: Path, home: Path, embedding: EmbeddingService) -> None:
    with served(".", bento, embedding.address, home) as (http, _):
        answer = http.post("/v1/embeddings", json={"input": ["one"]})
        assert answer.status_code == 200
        assert answer.json()["data"][0]["embedding"] == pytest.approx(vector_of("one").tolist(), abs=1e-7)
        assert http.get("/nope").json()["error_type"] == "Validation"
        assert http.get("/").headers["location"] == "/docs"
        assert 'requests_total{method="GET",route="unmatched",status="404"} 1.0' in http.get("/metrics").text


def test_bentoml_passes_on_hanging_up_and_refusal_while_reading(home: Path, embedding: EmbeddingService) -> None:
    with served("gateway.service:Gateway", ROOT, embedding.address, home) as (http, _):
        blanks = (b" " * 2**20 for _ in range(1024))
        refused = http.post("/embed", content=blanks, headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["error_type"]) == (413, "Validation")
        embedding.latency_s = 60
        body = b'{"inputs": "one"}'
        with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=10) as connection:
            connection.sendall(f"POST /embed HTTP/1.1\r\n{HEADERS}content-length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: embedding.in_flight > 0, within_s=10)
        wait_until(lambda: embedding.cancelled > 0, within_s=10)


def test_workers_share_their_metrics_and_leave_none_behind(home: Path, embedding: EmbeddingService) -> None:
    more = {"TORCHLESS_GATEWAY_WORKERS": "2"}
    with served("gateway.service:Gateway", ROOT, embedding.address, home, **more) as (http, pid):
        processes = psutil.Process(pid).children(recursive=True)
        for _ in range(20):
            with httpx.Client(base_url=http.base_url) as one:
                assert one.post("/embed", json={"inputs": "one"}).status_code == 200
        text = http.get("/metrics").text
        assert 'requests_total{method="POST",route="/embed",status="200"} 20.0' in text
    workers = [process for process in processes if process.pid != pid]
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


def test_a_killed_supervisor_leaves_the_port_free(home: Path, embedding: EmbeddingService) -> None:
    with served("gateway.service:Gateway", ROOT, embedding.address, home) as (http, pid):
        supervisor = psutil.Process(pid)
        workers = supervisor.children(recursive=True)
        assert workers
        supervisor.kill()
        _, alive = psutil.wait_procs(workers, timeout=20)
        for process in alive:
            process.kill()
        assert alive == []
        with socket.socket() as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((http.base_url.host, http.base_url.port or 80))
