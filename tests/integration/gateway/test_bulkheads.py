"""A capability that hangs takes no slots and no body memory that the others need."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from socket import create_connection
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import HEADERS, Gateway
from tests.integration.gateway.reranking_server import RerankingServer
from tests.waiting import wait_until
from torchless.clients.testing import EmbeddingService, GPUService, InProcessService

MIB = 2**20
HUNG_S = 60.0
PLACES = 8
"""Places of the gateways here: a capability that hangs takes half of them."""
GPU_ROUTES = ("GET /v1/gpu/status", "GET /v1/gpu/devices", "DELETE /v1/gpu/allocations/x", "GET /v1/gpu/watch")


@pytest.fixture
def hung_gpus() -> Iterator[GPUService]:
    """A GPU service without devices; tests let it hang."""
    with GPUService(()) as server:
        yield server


@pytest.fixture
def services(
    embedding: EmbeddingService, reranking: RerankingServer, hung_gpus: GPUService
) -> dict[str, dict[str, Any]]:
    """Settings of a gateway in front of all services."""
    servers = {"embedding": embedding, "reranking": reranking, "gpu": hung_gpus}
    return {name: {"address": server.address} for name, server in servers.items()}


@contextmanager
def under_way(
    http: httpx.Client, server: InProcessService, count: int, route: str, body: bytes = b""
) -> Iterator[None]:
    """So many requests that `server` does not answer, until the end of the block, when their callers disconnect."""
    server.latency_s = HUNG_S
    before = len(server.messages)
    head = f"{route} HTTP/1.1\r\n{HEADERS}content-length: {len(body)}\r\n\r\n".encode()
    address = (http.base_url.host, http.base_url.port or 80)
    with ExitStack() as held:
        for _ in range(count):
            held.enter_context(create_connection(address, timeout=10)).sendall(head + body)
        wait_until(lambda: len(server.messages) == before + count)
        yield


def embed(http: httpx.Client, text: str = "a", blanks: int = 0) -> httpx.Response:
    return http.post("/embed", content=json.dumps({"inputs": text}).encode() + b" " * blanks)


RERANK = json.dumps({"query": "a", "texts": ["a"]}).encode()


def rerank(http: httpx.Client) -> httpx.Response:
    return http.post("/rerank", content=RERANK)


def refused(answer: httpx.Response) -> bool:
    return answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1


def test_bodies_for_a_reranker_that_hangs_leave_room_for_those_of_others(
    gateway: Gateway, services: dict[str, Any], reranking: RerankingServer
) -> None:
    blanks = MIB - 1024
    with gateway(**services, limits={"body_mib": 1, "bodies_mib": 4}) as http:
        with under_way(http, reranking, 2, "POST /rerank", RERANK + b" " * blanks):
            full = http.post("/rerank", content=RERANK + b" " * blanks)
            assert refused(full)
            assert "busy" in full.json()["error"]
            for _ in range(3):
                assert embed(http, blanks=blanks).status_code == 200
        reranking.reset()
        wait_until(lambda: rerank(http).status_code == 200)


@pytest.mark.parametrize("route", GPU_ROUTES)
def test_gpu_requests_without_a_body_take_places_and_leave_some(
    gateway: Gateway, services: dict[str, Any], hung_gpus: GPUService, route: str
) -> None:
    deadline_s = 5.0 if "DELETE" in route else 30.0
    with gateway(**services, limits={"concurrent_requests": PLACES, "deadline_s": deadline_s}) as http:
        with under_way(http, hung_gpus, PLACES // 2, route):
            for each in GPU_ROUTES:
                assert refused(http.request(*each.split(" ")))
            assert embed(http).status_code == 200
            assert rerank(http).status_code == 200
            for path in ("/v1/models", "/models", "/v1/models/testing/hashes", "/info"):
                assert http.get(path).status_code == 200, path
        if "DELETE" in route:
            return  # wait until the capacity is released
        # Callers that disconnected hold no slots, and the gateway does not wait for their calls.
        wait_until(lambda: hung_gpus.cancelled > 0, within_s=10)
        hung_gpus.reset()
        wait_until(lambda: http.get("/v1/gpu/status").status_code == 200)


def test_a_lease_is_given_back_though_its_caller_hangs_up(
    gateway: Gateway, services: dict[str, Any], hung_gpus: GPUService
) -> None:
    with gateway(**services, limits={"deadline_s": 3.0}) as http:
        with under_way(http, hung_gpus, 1, "DELETE /v1/gpu/allocations/x"):
            pass
        time.sleep(1)
        assert not hung_gpus.cancelled


def test_with_every_capability_hanging_models_health_metrics_and_docs_are_answered(
    gateway: Gateway,
    services: dict[str, Any],
    embedding: EmbeddingService,
    reranking: RerankingServer,
    hung_gpus: GPUService,
) -> None:
    services["embedding"]["joining"] = {"enabled": False}
    limits = {"concurrent_requests": PLACES * 2}
    with gateway(**services, limits=limits, health={"timeout_s": 0.5}) as http, ExitStack() as held:
        body = json.dumps({"inputs": "a"}).encode()
        held.enter_context(under_way(http, embedding, PLACES, "POST /embed", body))
        held.enter_context(under_way(http, reranking, PLACES // 2, "POST /rerank", RERANK))
        held.enter_context(under_way(http, hung_gpus, PLACES // 4, "GET /v1/gpu/status"))
        for answer in (embed(http), rerank(http), http.get("/v1/gpu/status")):
            assert refused(answer)
        assert http.get("/v1/models").status_code == 503, "a slot is free, but no service answers"
        for path in ("/health/live", "/health", "/health/ready", "/metrics", "/docs"):
            assert http.get(path).status_code == 200, path


def test_the_gpu_service_has_a_limit_on_calls_of_its_own(
    gateway: Gateway, services: dict[str, Any], hung_gpus: GPUService
) -> None:
    services["gpu"]["concurrency"] = {"initial": 2, "min": 2, "max": 2}
    with gateway(**services) as http:
        with under_way(http, hung_gpus, 2, "GET /v1/gpu/status"):
            full = http.get("/v1/gpu/status")
            assert refused(full)
            assert "gpu" in full.json()["error"]["message"]
            assert embed(http).status_code == 200
            assert rerank(http).status_code == 200
        hung_gpus.reset()
        wait_until(lambda: http.get("/v1/gpu/status").status_code == 200)


def test_requests_that_wait_for_an_equal_text_leave_slots(
    gateway: Gateway, services: dict[str, Any], embedding: EmbeddingService
) -> None:
    limits = {"concurrent_requests": PLACES}
    with gateway(**services, limits=limits, cache={"enabled": True}) as http:
        assert embed(http, "known").status_code == 200
        body = json.dumps({"inputs": "new"}).encode()
        with ExitStack() as held:
            # One call for all of them: those after the first wait in the gateway.
            held.enter_context(under_way(http, embedding, 1, "POST /embed", body))
            head = f"POST /embed HTTP/1.1\r\n{HEADERS}content-length: {len(body)}\r\n\r\n".encode()
            for _ in range(PLACES):
                waiting = create_connection((http.base_url.host, http.base_url.port or 80), timeout=10)
                held.enter_context(waiting).sendall(head + body)
            wait_until(lambda: refused(embed(http, "known")))
            assert rerank(http).status_code == 200
        wait_until(lambda: embed(http, "known").status_code == 200)
