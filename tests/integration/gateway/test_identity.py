"""Principals: scopes that routes require, and the tenant that travels to every service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.settings import GatewaySettings
from gateway.worker import WorkerApp
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.error_bodies import message_of
from tests.integration.gateway.gpu_server import GPUServer
from tests.integration.gateway.reranking_server import RerankingServer
from torchless.clients.call import TENANT_KEY
from torchless.clients.testing import EmbeddingService

TENANT = "ward-7"
ALL, EMBED, OBSERVE = "key-with-all-scopes", "key-that-embeds", "key-that-observes"
KEYS = [
    {"key": ALL, "name": "all", "tenant": TENANT},
    {"key": EMBED, "scopes": ["embed"]},
    {"key": OBSERVE, "scopes": ["gpu:read", "models:read"]},
]
LEASE = {"memory_mb": 1, "holder": "trainer"}
REQUESTS: list[tuple[str, str, str, dict[str, Any] | None, str]] = [
    ("openai", "POST", "/v1/embeddings", {"input": "one"}, "embed"),
    ("tei", "POST", "/embed", {"inputs": "one"}, "embed"),
    ("tei", "POST", "/embed_all", {"inputs": "one"}, "embed"),
    ("tei", "POST", "/tokenize", {"inputs": "one"}, "embed"),
    ("tei", "POST", "/decode", {"ids": [1, 2]}, "embed"),
    ("cohere", "POST", "/v2/embed", {"texts": ["one"]}, "embed"),
    ("cohere", "POST", "/v2/rerank", {"query": "a", "documents": ["b"]}, "rerank"),
    ("undecided", "POST", "/rerank", {"query": "a", "documents": ["b"]}, "rerank"),
    ("vllm", "POST", "/score", {"text_1": "a", "text_2": "b"}, "rerank"),
    ("openai", "GET", "/v1/models", None, "models:read"),
    ("tei", "GET", "/info", None, "models:read"),
    ("openai", "GET", "/v1/gpu/status", None, "gpu:read"),
    ("openai", "POST", "/v1/gpu/allocations", LEASE, "gpu:write"),
    ("openai", "DELETE", "/v1/gpu/allocations/x", None, "gpu:write"),
]


@pytest.fixture(scope="module")
def _locked(
    _embedding_server: EmbeddingService, _reranking_server: RerankingServer, _gpu_server: GPUServer, gateway: Gateway
) -> Iterator[httpx.Client]:
    servers = {"embedding": _embedding_server, "reranking": _reranking_server, "gpu": _gpu_server}
    clients = {name: {"address": server.address} for name, server in servers.items()}
    with gateway(**clients, auth={"api_keys": KEYS}) as client:
        yield client


@pytest.fixture
def locked(
    _locked: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer, gpu: GPUServer
) -> httpx.Client:
    """A client of a gateway that requires one of `KEYS`."""
    return _locked


def send(http: httpx.Client, method: str, path: str, body: Any, key: str) -> httpx.Response:
    return http.request(method, path, json=body, headers={"x-api-key": key})


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each[2])
def test_a_key_without_the_scope_is_forbidden(
    locked: httpx.Client, request_: tuple[str, str, str, dict[str, Any] | None, str]
) -> None:
    family, method, path, body, scope = request_
    (without,) = {EMBED, OBSERVE} - {EMBED if scope == "embed" else OBSERVE}
    answer = send(locked, method, path, body, without)
    assert answer.status_code == 403
    assert f"the scope {scope}" in message_of(family, answer)
    assert send(locked, method, path, body, ALL).status_code in {200, 404}
    allowed = {"embed": EMBED, "gpu:read": OBSERVE, "models:read": OBSERVE}.get(scope)
    if allowed is not None:
        assert send(locked, method, path, body, allowed).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics", "/docs", "/openapi.json"])
def test_open_routes_answer_any_key(locked: httpx.Client, path: str) -> None:
    assert send(locked, "GET", path, None, "not-a-key-of-ours").status_code == 200


@pytest.mark.parametrize(("path", "body"), [(path, body) for _, _, path, body, scope in REQUESTS if scope == "embed"])
def test_the_tenant_travels_to_the_embedding_service(
    locked: httpx.Client, embedding: EmbeddingService, path: str, body: Any
) -> None:
    assert send(locked, "POST", path, body, ALL).status_code == 200
    assert embedding.requests[-1].metadata[TENANT_KEY] == TENANT
    assert send(locked, "POST", path, body, EMBED).status_code == 200
    assert TENANT_KEY not in embedding.requests[-1].metadata


@pytest.mark.parametrize(("path", "body"), [(path, body) for _, _, path, body, scope in REQUESTS if scope == "rerank"])
def test_the_tenant_travels_to_the_reranking_service(
    locked: httpx.Client, reranking: RerankingServer, path: str, body: Any
) -> None:
    assert send(locked, "POST", path, body, ALL).status_code == 200
    assert reranking.requests[-1].metadata[TENANT_KEY] == TENANT


def test_the_tenant_travels_with_lists_of_models(
    locked: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer
) -> None:
    assert send(locked, "GET", "/v1/models", None, ALL).status_code == 200
    assert embedding.requests[-1].metadata[TENANT_KEY] == reranking.requests[-1].metadata[TENANT_KEY] == TENANT


def test_tenants_do_not_share_cached_embeddings(gateway: Gateway, embedding: EmbeddingService) -> None:
    keys = [{"key": f"key-of-{name}", "tenant": name} for name in ("one", "two")]
    with gateway(embedding={"address": embedding.address}, cache={"enabled": True}, auth={"api_keys": keys}) as http:
        found = [
            send(http, "POST", "/embed", {"inputs": "text"}, f"key-of-{name}").headers["x-torchless-cache"]
            for name in ("one", "one", "two", "two")
        ]
    assert found == ["miss", "hit", "miss", "hit"]


def test_a_lease_belongs_to_the_tenant_of_the_key(locked: httpx.Client) -> None:
    lease = send(locked, "POST", "/v1/gpu/allocations", LEASE, ALL)
    assert (lease.status_code, lease.json()["tenant"]) == (200, TENANT)


def test_a_lease_request_that_names_a_tenant_is_refused(locked: httpx.Client) -> None:
    refused = send(locked, "POST", "/v1/gpu/allocations", {**LEASE, "tenant": "another"}, ALL)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tenant")
    assert "the tenant of the API key" in refused.json()["error"]["message"]
    assert send(locked, "GET", "/v1/gpu/status", None, ALL).json()["allocations"] == []
    assert send(locked, "POST", "/v1/gpu/allocations", {**LEASE, "tenant": None}, ALL).status_code == 200


@pytest.mark.parametrize(("headers", "codes"), [([], [1008]), ([(b"x-api-key", b"wrong-key")], [1008])])
async def test_a_websocket_without_a_valid_key_is_closed_before_it_is_accepted(
    headers: list[tuple[bytes, bytes]], codes: list[int]
) -> None:
    application = WorkerApp(GatewaySettings(auth={"api_keys": KEYS}))
    await application.open()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send_message(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/embeddings", "headers": headers, "query_string": b"", "root_path": ""}
    await application(scope, receive, send_message)
    await application.close()
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", code) for code in codes]


def test_a_websocket_handshake_without_a_key_is_answered_403(locked: httpx.Client) -> None:
    handshake = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert locked.get("/v1/embeddings", headers=handshake).status_code == 403
