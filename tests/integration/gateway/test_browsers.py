"""Requests as browsers send them for web pages."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.error_bodies import message_of
from tests.waiting import wait_until
from torchless.clients.testing import EmbeddingService

PAGE = "https://app.example"
LEASE = b'{"memory_mb": 1, "holder": "a web page"}'
BODIES = {
    "openai": ("/v1/embeddings", b'{"input": "one"}'),
    "tei": ("/embed", b'{"inputs": "one"}'),
    "cohere": ("/v2/embed", b'{"texts": ["one"]}'),
    "vllm": ("/score", b'{"text_1": "a", "text_2": "b"}'),
    "undecided": ("/rerank", b'{"query": "a", "documents": ["b"]}'),
}


@pytest.mark.parametrize("family", BODIES)
@pytest.mark.parametrize(
    "given", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
def test_bodies_that_are_not_declared_as_json_are_refused(http: httpx.Client, family: str, given: str) -> None:
    path, body = BODIES[family]
    refused = http.post(path, content=body, headers={"content-type": given})
    assert (refused.status_code, refused.headers["accept"]) == (415, "application/json")
    assert "content-type: must be application/json" in message_of(family, refused)


@pytest.mark.parametrize("given", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"])
def test_json_types_are_accepted(http: httpx.Client, given: str) -> None:
    for path, body in BODIES.values():
        assert http.post(path, content=body, headers={"content-type": given}).status_code == 200


def test_a_body_without_a_type_is_refused(http: httpx.Client) -> None:
    request = http.build_request("POST", "/v1/embeddings", content=b'{"input": "one"}')
    del request.headers["content-type"]
    assert http.send(request).status_code == 415


def test_a_page_cannot_lease_memory_with_a_simple_request(http: httpx.Client) -> None:
    """The Fetch standard lets every page send these types; the page of the issue sent text/plain."""
    for sent in ({"content-type": "text/plain"}, {"origin": PAGE}, {"sec-fetch-site": "cross-site"}):
        answer = http.post("/v1/gpu/allocations", content=LEASE, headers=sent)
        assert answer.status_code in {403, 415}, sent
    assert http.get("/v1/gpu/status").json()["allocations"] == []
    assert http.post("/v1/gpu/allocations", content=LEASE).status_code == 200


def test_a_rebound_name_reads_nothing(http: httpx.Client) -> None:
    for path in ("/docs", "/metrics", "/openapi.json", "/health/ready", "/v1/models", "/nope", "/"):
        refused = http.get(path, headers={"host": "evil.example:3000"})
        assert refused.status_code == 403
        assert "allowed_hosts" in refused.text
        assert "evil" not in refused.text


def test_errors_of_pages_have_the_familys_body(http: httpx.Client) -> None:
    for family, (path, body) in BODIES.items():
        host = http.post(path, content=body, headers={"host": "evil.example"})
        origin = http.post(path, content=body, headers={"origin": "https://evil.example"})
        assert (host.status_code, origin.status_code) == (403, 403)
        assert "allowed_hosts" in message_of(family, host)
        assert "cors.allow_origins" in message_of(family, origin)


def test_by_default_no_response_has_cors_headers(http: httpx.Client) -> None:
    preflight = {"origin": PAGE, "access-control-request-method": "POST"}
    for answer in (
        http.options("/v1/embeddings", headers=preflight),
        http.get("/v1/models", headers={"origin": PAGE}),
        http.post("/v1/embeddings", json={"input": "one"}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_pages_of_allowed_origins_may_use_the_gateway(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}, cors={"allow_origins": [PAGE]}) as http:
        wanted = "authorization, content-type, x-stainless-lang"
        asks = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
        allowed = http.options("/v1/embeddings", headers={"origin": PAGE, **asks})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert allowed.headers["access-control-allow-headers"] == wanted
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in allowed.headers

        page = {"origin": PAGE, "sec-fetch-site": "cross-site"}
        for answer, status in (
            (http.post("/v1/embeddings", json={"input": "one"}, headers=page), 200),
            (http.post("/v1/embeddings", json={"input": []}, headers=page), 400),
            (http.get("/nope", headers=page), 404),
        ):
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["access-control-expose-headers"] == "*"
            assert "Origin" in answer.headers["vary"]

        other = http.options("/v1/embeddings", headers={"origin": "https://evil.example", **asks})
        assert "access-control-allow-origin" not in other.headers
        refused = http.post("/v1/embeddings", json={"input": "one"}, headers={"origin": "https://evil.example"})
        assert (refused.status_code, refused.headers.get("access-control-allow-origin")) == (403, None)


def test_allowed_origins_and_hosts_change_while_the_gateway_runs(
    gateway: Gateway, embedding: EmbeddingService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gateway.yaml"
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(path))
    settings = {"embedding": {"address": embedding.address}, "reranking": {"address": ""}, "gpu": {"address": ""}}
    path.write_text(yaml.safe_dump(settings))

    def status(**headers: str) -> int:
        return http.post("/v1/embeddings", json={"input": "one"}, headers=headers).status_code

    with gateway(**settings) as http:
        assert (status(origin=PAGE), status(host="gateway.example")) == (403, 403)
        path.write_text(
            yaml.safe_dump({**settings, "cors": {"allow_origins": [PAGE]}, "allowed_hosts": ["gateway.example"]})
        )
        wait_until(lambda: status(origin=PAGE) == 200)
        assert status(host="gateway.example") == 200
        path.write_text(yaml.safe_dump(settings))
        wait_until(lambda: status(origin=PAGE) == 403)
