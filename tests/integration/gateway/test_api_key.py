"""API keys, in each header that clients use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.error_bodies import message_of
from tests.integration.gateway.reranking_server import RerankingServer
from torchless.clients.testing import EmbeddingService

KEYS = ["first-key-of-two", "second key, with spaces"]
RERANK = {"query": "a", "documents": ["b"]}
BODIES: dict[tuple[str, str], Any] = {
    ("openai", "/v1/embeddings"): {"input": "one"},
    ("openai", "/embeddings"): {"input": "one"},
    ("tei", "/embed"): {"inputs": "one"},
    ("tei", "/"): {"inputs": "one"},
    ("cohere", "/v1/embed"): {"texts": ["one"]},
    ("cohere", "/v2/embed"): {"texts": ["one"]},
    ("cohere", "/v1/rerank"): RERANK,
    ("cohere", "/v2/rerank"): RERANK,
    # Refused before the body shows which variant it is.
    ("undecided", "/rerank"): RERANK,
    ("vllm", "/score"): {"text_1": "a", "text_2": "b"},
}
OPEN = {
    *("/health", "/health/live", "/health/ready", "/ping", "/reranker/health", "/reranker/ping"),
    *("/metrics", "/docs", "/openapi.json"),
}


@pytest.fixture(scope="module")
def locked(
    _embedding_server: EmbeddingService, _reranking_server: RerankingServer, gateway: Gateway
) -> Iterator[httpx.Client]:
    """A client of a gateway that requires one of `KEYS`."""
    addresses = {"embedding": _embedding_server.address, "reranking": _reranking_server.address}
    channels = {name: {"address": address} for name, address in addresses.items()}
    with gateway(**channels, auth={"api_keys": KEYS}) as client:
        yield client


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("family", "path"), BODIES)
def test_a_key_is_read_from_each_header(locked: httpx.Client, family: str, path: str, key: str) -> None:
    body = BODIES[family, path]
    for name, value in (
        ("authorization", f"Bearer {key}"),
        ("Authorization", f"bearer  {key}"),
        ("authorization", key),
        ("X-Api-Key", key),
    ):
        assert locked.post(path, json=body, headers={name.encode(): value.encode()}).status_code == 200
    both = [(b"authorization", b"Basic dXNlcjpwYXNz"), (b"x-api-key", key.encode())]
    assert locked.post(path, json=body, headers=both).status_code == 200


@pytest.mark.parametrize(("family", "path"), BODIES)
@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "an API key is required"),
        ({"authorization": ""}, "an API key is required"),
        ({"authorization": "Bearer"}, "an API key is required"),
        ({"authorization": "Bearer first-key-of-tw"}, "the API key is not valid"),
        ({"authorization": "Bearer first-key-of-two2"}, "the API key is not valid"),
        ({"x-api-key": "FIRST-KEY-OF-TWO"}, "the API key is not valid"),
        ({"authorization": "Bearer first-key-of-two, first-key-of-two"}, "the API key is not valid"),
    ],
)
def test_requests_without_a_valid_key_are_unauthenticated(
    locked: httpx.Client, family: str, path: str, headers: dict[str, str], said: str
) -> None:
    answer = locked.post(path, json=BODIES[family, path], headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert said in message_of(family, answer)
    assert "first-key" not in answer.text
    if family == "openai":
        assert answer.json()["error"]["type"] == "authentication_error"


def test_every_route_but_the_open_ones_requires_a_key(locked: httpx.Client) -> None:
    document = locked.get("/openapi.json").json()
    assert document["security"] == [{"bearer": []}, {"api_key": []}]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "api_key"}
    asked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answer = locked.request(method, re.sub(r"{\w+}", "x", path), json={} if method == "post" else None)
            if path in OPEN:
                assert answer.status_code == 200
                assert operation["security"] == []
            else:
                assert answer.status_code == 401, path
                assert "401" in operation["responses"]
                assert "security" not in operation
                asked += 1
    assert asked > 15
    for path in OPEN:
        assert locked.get(path).status_code == 200


def test_no_key_is_required_unless_keys_are_configured(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json()["security"] == []
    for headers in ({}, {"authorization": "Bearer anything"}, {"authorization": "anything"}, {"x-api-key": "anything"}):
        assert http.post("/v2/rerank", json=RERANK, headers=headers).status_code == 200


def test_keys_are_not_logged(locked: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="gateway")
    locked.post("/v2/rerank", json=RERANK, headers={"authorization": "Bearer wrong-and-secret"})
    locked.post("/v2/rerank", json=RERANK, headers={"authorization": f"Bearer {KEYS[0]}"})
    assert "wrong-and-secret" not in caplog.text
    assert KEYS[0] not in caplog.text


def test_a_large_body_without_a_key_leaves_the_connection_usable(locked: httpx.Client) -> None:
    for _ in range(3):
        refused = locked.post("/v2/rerank", content=b" " * 20 * 2**20)
        assert refused.status_code == 401
        headers = {"x-api-key": KEYS[0]}
        assert locked.post("/v2/rerank", json=RERANK, headers=headers).status_code == 200
