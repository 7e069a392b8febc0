"""Health, metrics, the API's description, and the headers that travel with a request."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.gpu_server import GPUServer
from tests.integration.gateway.reranking_server import RerankingServer
from torchless.clients.testing import EmbeddingService
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.telemetry.log_format import JSONFormatter


def test_live_calls_no_service(gateway: Gateway, free_address: str) -> None:
    with gateway(embedding={"address": free_address}) as http:
        assert http.get("/health/live").json() == {"status": "alive"}


def test_readiness_lists_services_and_endpoints(
    http: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer, gpu: GPUServer
) -> None:
    answer = http.get("/health/ready")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["ready"], told["settings"]) == (True, {"refused": None})
    servers = {"embedding": embedding, "reranking": reranking, "gpu": gpu}
    assert told["services"].keys() == servers.keys()
    for name, state in told["services"].items():
        assert (state["ready"], state["reason"]) == (True, None)
        (endpoint,) = state["endpoints"]
        assert endpoint["address"] == servers[name].address
        assert endpoint["breaker"] == {"state": "closed", "trips": 0, "next_probe_s": 0.0}
    assert (http.get("/health").status_code, http.get("/health").json()) == (200, {})


def test_not_ready_while_models_load(http: httpx.Client, embedding: EmbeddingService) -> None:
    embedding.serving = False
    answer = http.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    assert "not ready" in answer.json()["services"]["embedding"]["reason"]
    health = http.get("/health")
    assert (health.status_code, health.json()) == (503, {"error": "unhealthy", "error_type": "Unhealthy"})
    embedding.serving = True
    assert http.get("/health/ready").status_code == 200


def test_not_ready_without_the_service(gateway: Gateway, free_address: str) -> None:
    with gateway(embedding={"address": free_address}) as http:
        answer = http.get("/health/ready")
    assert answer.status_code == 503
    embedding = answer.json()["services"]["embedding"]
    assert "cannot be reached" in embedding["reason"]
    assert free_address not in embedding["reason"]
    assert [endpoint["address"] for endpoint in embedding["endpoints"]] == [free_address]


def test_health_answers_head_as_get(http: httpx.Client, embedding: EmbeddingService) -> None:
    for path, status in (("/health/live", 200), ("/health/ready", 503), ("/health", 503)):
        for serving, expected in ((True, 200), (False, status)):
            embedding.serving = serving
            assert (http.get(path).status_code, http.head(path).status_code) == (expected, expected)


def test_addresses_of_endpoints_need_a_key_where_keys_are_configured(
    gateway: Gateway, embedding: EmbeddingService
) -> None:
    with gateway(embedding={"address": embedding.address}, auth={"api_keys": ["a-key-of-mine"]}) as http:
        for headers in ({}, {"x-api-key": "another-key"}):
            for path in ("/health/ready", "/metrics", "/openapi.json", "/docs"):
                answer = http.get(path, headers=headers)
                assert answer.status_code == 200
                assert embedding.address not in answer.text, path
            (endpoint,) = http.get("/health/ready", headers=headers).json()["services"]["embedding"]["endpoints"]
            assert (endpoint["address"], endpoint["health"]) == (None, "serving")
        for path in ("/health/ready", "/metrics"):
            assert embedding.address in http.get(path, headers={"x-api-key": "a-key-of-mine"}).text


def test_readiness_is_asked_for_no_longer_than_the_caller_waits(gateway: Gateway, embedding: EmbeddingService) -> None:
    embedding.health_latency_s = 60
    # The client of this test gives up after 20 s.
    with gateway(embedding={"address": embedding.address}, health={"timeout_s": 60}) as http:
        answer = http.get("/health/ready", headers={"x-request-timeout-s": "0.2"})
    assert answer.status_code == 503
    assert answer.json()["ready"] is False


def test_a_slash_at_the_end_is_another_path(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}, allowed_hosts=["elsewhere.example"]) as http:
        for path in ("/v1/models/", "/health/", "/docs/", "/v1/embeddings/"):
            answer = http.get(path, headers={"host": "elsewhere.example"})
            assert answer.status_code == 404
            assert "location" not in answer.headers
            assert "elsewhere" not in answer.text


def test_metrics_count_by_route_and_status(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}) as http:
        http.post("/v1/embeddings", json={"input": "one"})
        http.post("/v1/embeddings", json={"input": []})
        http.get("/v1/models/testing/hashes")
        http.get("/no/such/route/secret")
        answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'requests_total{method="POST",route="/v1/embeddings",status="200"} 1.0' in answer.text
    assert 'requests_total{method="POST",route="/v1/embeddings",status="400"} 1.0' in answer.text
    assert 'requests_total{method="GET",route="/v1/models/{model_id:path}",status="200"} 1.0' in answer.text
    assert 'requests_total{method="GET",route="unmatched",status="404"} 1.0' in answer.text
    assert 'request_seconds_count{method="POST",route="/v1/embeddings"} 2.0' in answer.text
    assert "torchless_gateway_requests_in_flight 1.0" in answer.text
    assert "secret" not in answer.text


def test_every_documented_example_works(http: httpx.Client) -> None:
    sent = 0
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in content.get("examples", {}).values():
            if "{allocation_id}" in path:
                lease = http.post("/v1/gpu/allocations", json={"memory_mb": 1, "holder": "docs"}).json()["id"]
            answer = http.post(path.replace("{allocation_id}", lease if "{" in path else ""), json=example["value"])
            assert answer.status_code == 200, (path, example)
            sent += 1
    assert sent > 15


def test_a_request_id_is_kept_or_made(http: httpx.Client, embedding: EmbeddingService) -> None:
    answer = http.post("/embed", json={"inputs": "one"}, headers={"x-request-id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    assert embedding.requests[-1].metadata["x-request-id"] == "abc-1"
    for unusable in ("", "a b", "x" * 129, 'a"b'):
        made = http.post("/embed", json={"inputs": "one"}, headers={"x-request-id": unusable})
        assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [("00-" + "a" * 32 + "-" + "b" * 16 + "-01", True), ("nonsense", False)],
)
def test_a_trace_is_passed_on(http: httpx.Client, embedding: EmbeddingService, sent: str, passed_on: bool) -> None:
    http.post("/embed", json={"inputs": "one"}, headers={"traceparent": sent})
    assert embedding.requests[-1].metadata.get("traceparent") == (sent if passed_on else None)


def test_the_service_gets_what_is_left_of_the_deadline(http: httpx.Client, embedding: EmbeddingService) -> None:
    http.post("/embed", json={"inputs": "one"}, headers={"x-request-timeout-s": "7"})
    assert embedding.requests[-1].deadline_s is not None
    # gRPC rounds deadlines up on the wire.
    assert 6 < embedding.requests[-1].deadline_s < 7.1
    http.post("/embed", json={"inputs": "one"}, headers={"x-request-timeout-s": "1e9"})
    assert 55 < embedding.requests[-1].deadline_s < 61


def test_keys_are_accepted_and_ignored(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings", json={"input": "one"}, headers={"authorization": "Bearer sk-anything"})
    assert answer.status_code == 200


def test_a_defect_is_logged_without_what_the_caller_sent(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "a secret text"

    def defect(*given: object) -> None:
        raise KeyError(secret)

    monkeypatch.setattr("gateway.apis.openai.routes.finite", defect)
    answer = http.post("/v1/embeddings", json={"input": secret}, headers={"x-request-id": "abc-2"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    (line,) = (JSONFormatter("gateway").format(each) for each in caplog.records if each.name == "torchless.request")
    assert "abc-2" in line
    assert "KeyError" in line
    assert __file__ in line, "with the stack"
    assert "secret text" not in line


def test_errors_while_listing_models(
    http: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer
) -> None:
    for server in (embedding, reranking):
        server.error = TorchlessError(ErrorKind.UNREACHABLE, "not there")
    for path in ("/v1/models", "/v1/models/x", "/models", "/info"):
        assert http.get(path).status_code == 503
