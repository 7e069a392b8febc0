"""Settings that change while the gateway runs: no request is dropped, and each keeps what it began with."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.integration.gateway.conftest import HEADERS, Gateway
from tests.integration.gateway.reranking_server import RerankingServer
from tests.running_stack import ROOT
from tests.waiting import wait_until
from torchless.cli.free_ports import free_port
from torchless.clients.testing import EmbeddingService

RERANK = {"query": "a", "documents": ["a", "b"]}


class Configured:
    """The gateway's settings file."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        # Requests with the same text have to reach the services.
        self.settings: dict[str, Any] = {"cache": {"enabled": False}}
        self.write(reranking={"address": ""}, gpu={"address": ""}, **settings)

    def write(self, **settings: Any) -> None:
        """Replaces these groups of settings, and the file by one rename, as editors and deployments do."""
        self.settings |= settings
        self.replace(yaml.safe_dump(self.settings))

    def replace(self, content: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(content)
        new.replace(self.path)


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedding: EmbeddingService) -> Configured:
    """A file that names `embedding`, and that gateways of the test read."""
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(tmp_path / "gateway.yaml"))
    return Configured(tmp_path / "gateway.yaml", embedding={"address": embedding.address})


@pytest.fixture
def another_embedding() -> Iterator[EmbeddingService]:
    """A second one of the service."""
    with EmbeddingService() as server:
        yield server


def reloads(http: httpx.Client, outcome: str) -> int:
    """Number of reloads with that outcome, of all workers."""
    start = f'torchless_gateway_settings_reloads_total{{outcome="{outcome}"}} '
    found = (line for line in http.get("/metrics").text.splitlines() if line.startswith(start))
    return int(float(next(found, "0").rpartition(" ")[2]))


def until_applied(http: httpx.Client, times: int) -> None:
    wait_until(lambda: reloads(http, "applied") == times)


def embed(http: httpx.Client, count: int, **headers: str) -> int:
    return http.post("/embed", json={"inputs": ["one"] * count}, headers=headers).status_code


def test_later_requests_get_changed_limits_keys_and_aliases(gateway: Gateway, configured: Configured) -> None:
    with gateway(**configured.settings) as http:
        assert embed(http, 3) == 200
        named = {"input": "one", "model": "small"}
        assert http.post("/v1/embeddings", json=named).status_code == 404
        configured.write(limits={"items": 2}, models={"aliases": {"small": ""}}, auth={"api_keys": ["a-key-of-mine"]})
        until_applied(http, 1)
        key = {"x-api-key": "a-key-of-mine"}
        assert embed(http, 2) == 401
        assert (embed(http, 2, **key), embed(http, 3, **key)) == (200, 413)
        assert http.post("/v1/embeddings", json=named, headers=key).status_code == 200


def test_readiness_says_why_settings_are_refused(gateway: Gateway, configured: Configured) -> None:
    def refused() -> Any:
        answer = http.get("/health/ready")
        assert answer.status_code == 200
        return answer.json()["settings"]["refused"]

    with gateway(**configured.settings) as http:
        assert refused() is None
        configured.write(limits={"items": -1}, auth={"api_keys": ["a-key-of-mine", "short"]})
        wait_until(lambda: refused() is not None)
        assert "limits.items: Input should be greater than or equal to 1" in refused()
        assert "auth.api_keys: " in refused()
        assert "mine" not in refused()
        assert embed(http, 3) == 200
        configured.write(limits={"items": 2}, auth={})
        wait_until(lambda: refused() is None)
        assert embed(http, 3) == 413


def test_a_request_keeps_the_settings_that_it_began_with(gateway: Gateway, configured: Configured) -> None:
    body = b'{"inputs": ["one", "two", "three"]}'
    with gateway(**configured.settings) as http:
        host, port = http.base_url.host, http.base_url.port or 80
        with socket.create_connection((host, port), timeout=20) as begun:
            begun.sendall(f"POST /embed HTTP/1.1\r\n{HEADERS}content-length: {len(body)}\r\n\r\n".encode() + body[:9])
            wait_until(lambda: "requests_in_flight 2.0" in http.get("/metrics").text)
            configured.write(limits={"items": 2, "body_mib": 0.00001})
            until_applied(http, 1)
            assert embed(http, 1) == 413
            begun.sendall(body[9:])
            assert begun.recv(12) == b"HTTP/1.1 200"
        assert http.post("/embed", json={"inputs": "one"}).status_code == 413


def test_services_come_and_go_and_requests_at_work_finish(
    gateway: Gateway, configured: Configured, reranking: RerankingServer
) -> None:
    with gateway(**configured.settings) as http, ThreadPoolExecutor(1) as pool:
        assert http.post("/rerank", json=RERANK).status_code == 503
        configured.write(reranking={"address": reranking.address})
        until_applied(http, 1)
        assert http.post("/rerank", json=RERANK).status_code == 200
        assert set(http.get("/health/ready").json()["services"]) == {"embedding", "reranking"}
        reranking.latency_s = 60
        slow = pool.submit(http.post, "/rerank", json=RERANK)
        wait_until(lambda: reranking.in_flight > 0, within_s=20)
        configured.write(reranking={"address": ""})
        until_applied(http, 2)
        assert not slow.done()
        assert http.post("/rerank", json=RERANK).status_code == 503
        assert set(http.get("/health/ready").json()["services"]) == {"embedding"}
        reranking.latency_s = 0
        assert slow.result().status_code == 200


@contextmanager
def served(configured: Configured, folder: Path, **more: str) -> Iterator[tuple[httpx.Client, psutil.Process, Path]]:
    """The gateway in separate processes: a client, BentoML's supervisor and the log."""
    port = free_port()
    log = folder / "serve.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHLESS_", "BENTOML_"))}
    more = {"TORCHLESS_GATEWAY_CONFIG": str(configured.path), "BENTOML_HOME": str(folder), **more}
    command = [sys.executable, "-m", "bentoml", "serve", "gateway.service:Gateway", "--host", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=ROOT,
            env={**kept, "BENTOML_DO_NOT_TRACK": "True", **more},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                wait_until(lambda: _live(client, process), within_s=60)
                yield client, psutil.Process(process.pid), log
        finally:
            process.terminate()
            process.wait(30)


def _live(client: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "it ended before it was live"
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def steady_load(url: httpx.URL, clients: int = 4) -> Iterator[Counter[str]]:
    """Requests, one after the other from each client, for as long as the context lasts; how they ended, by number."""
    outcomes: Counter[str] = Counter()
    stop, counting = threading.Event(), threading.Lock()

    def send() -> None:
        with httpx.Client(base_url=url, timeout=20) as http:
            while not stop.is_set():
                try:
                    outcome = str(embed(http, 3))
                except httpx.TransportError as error:
                    outcome = type(error).__name__
                with counting:
                    outcomes[outcome] += 1
                time.sleep(0.01)

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_endpoints_change_break_and_mend_under_load_and_no_request_fails(
    configured: Configured, tmp_path: Path, embedding: EmbeddingService, another_embedding: EmbeddingService
) -> None:
    workers, other = 2, another_embedding
    with served(configured, tmp_path, TORCHLESS_GATEWAY_WORKERS=str(workers)) as (http, _, log):

        def until_called(server: EmbeddingService) -> None:
            before = len(server.messages)
            wait_until(lambda: len(server.messages) > before + 50)

        def only_the_other_is_called() -> bool:
            until_called(other)
            before = len(embedding.messages)
            until_called(other)
            return len(embedding.messages) == before

        with steady_load(http.base_url) as outcomes:
            until_called(embedding)
            configured.write(embedding={"address": f"{embedding.address},{other.address}"})
            until_applied(http, workers)
            until_called(other)
            until_called(embedding)
            configured.write(embedding={"address": other.address})
            until_applied(http, 2 * workers)
            assert only_the_other_is_called()
            configured.replace(f"embedding:\n  address: {embedding.address}\nlimits: {{items: 2\n")
            wait_until(lambda: reloads(http, "refused") == workers)
            assert "torchless_gateway_settings_refused 1.0" in http.get("/metrics").text
            assert http.get("/health/ready").json()["settings"]["refused"].startswith("the file is not YAML: line 4")
            assert only_the_other_is_called()
            configured.write(embedding={"address": embedding.address}, limits={"deadline_s": 5})
            until_applied(http, 3 * workers)
            until_called(embedding)
            assert "torchless_gateway_settings_refused 0.0" in http.get("/metrics").text
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > 300
    printed = log.read_text()
    assert printed.count('changed settings are in force: embedding.address"') == 2 * workers
    assert printed.count('changed settings are in force: embedding.address, limits.deadline_s"') == workers
    assert printed.count("gateway.yaml, line 4, column 1: the file is not YAML") == workers
    # The clients' own lines name endpoints; of the file, only names of settings are logged.
    told = [line for line in printed.splitlines() if "torchless.clients" not in line]
    assert not any(embedding.address in line for line in told)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_workers_read_the_file_again_on_sighup(configured: Configured, tmp_path: Path) -> None:
    configured.write(reload={"watch": False})
    with served(configured, tmp_path) as (http, supervisor, _):
        wait_until(lambda: reloads(http, "unchanged") == 1)
        configured.write(limits={"items": 2})
        for worker in supervisor.children(recursive=True):
            if "_bentoml_impl.worker.service" in worker.cmdline():
                worker.send_signal(signal.SIGHUP)
        until_applied(http, 1)
        assert (embed(http, 2), embed(http, 3)) == (200, 413)
