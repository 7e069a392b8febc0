"""What the gateway answers while services are out, slow or full, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.reranking_server import RerankingServer
from tests.waiting import wait_until
from torchless.clients.testing import EMBEDDING_MODEL, EmbeddingService, vector_of
from torchless.contracts.errors import ErrorKind, TorchlessError

CACHE, DEGRADED, REVISION = "x-torchless-cache", "x-torchless-degraded", "x-torchless-revision"
ROUTES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/embeddings": lambda text: {"input": text, "model": ""},
    "/embed": lambda text: {"inputs": text},
    "/v2/embed": lambda text: {
        "texts": [text],
        "model": "",
        "input_type": "search_document",
        "embedding_types": ["float"],
    },
}
EMBED = pytest.mark.parametrize("path", ROUTES)


@pytest.fixture
def another() -> Iterator[EmbeddingService]:
    """A second endpoint of the embedding service."""
    with EmbeddingService() as server:
        yield server


@pytest.fixture
def cached(gateway: Gateway, embedding: EmbeddingService) -> Iterator[httpx.Client]:
    """A gateway with a cache, in front of `embedding`."""
    with gateway(embedding={"address": embedding.address}, cache={"enabled": True}) as http:
        yield http


def health_of(http: httpx.Client, capability: str = "embedding") -> list[str]:
    answer = http.get("/health/ready").json()["services"][capability]
    return [endpoint["health"] for endpoint in answer["endpoints"]]


def metric(http: httpx.Client, name: str) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@EMBED
def test_repeated_inputs_come_from_the_cache_and_a_header_says_so(
    cached: httpx.Client, embedding: EmbeddingService, path: str
) -> None:
    body = ROUTES[path](f"a text for {path}")
    first, second = cached.post(path, json=body), cached.post(path, json=body)
    assert (first.headers[CACHE], second.headers[CACHE]) == ("miss", "hit")
    assert first.headers[REVISION] == second.headers[REVISION] == EMBEDDING_MODEL.revision
    assert DEGRADED not in second.headers
    one, two = first.json(), second.json()
    if path == "/v2/embed":
        one.pop("id"), two.pop("id")
    assert one == two
    assert [list(request.texts) for request in embedding.messages if hasattr(request, "truncation")] == [
        [f"a text for {path}"]
    ]


def test_a_request_partly_in_the_cache_asks_for_the_rest_alone(
    cached: httpx.Client, embedding: EmbeddingService
) -> None:
    cached.post("/embed", json={"inputs": ["one", "two"]})
    embedding.requests.clear()
    answer = cached.post("/embed", json={"inputs": ["two", "three", "one"]})
    assert answer.headers[CACHE] == "partial"
    assert [list(each.texts) for each in embedding.messages] == [["three"]]
    wanted = np.stack([vector_of(text) for text in ("two", "three", "one")])
    np.testing.assert_array_equal(np.array(answer.json(), dtype=np.float32), wanted)


def test_the_index_of_a_bad_input_is_the_requests_own(cached: httpx.Client) -> None:
    cached.post("/embed", json={"inputs": ["one"], "truncate": False})
    answer = cached.post("/embed", json={"inputs": ["one", " ".join("word" for _ in range(70))], "truncate": False})
    assert answer.status_code == 413
    assert "inputs[1]" in answer.json()["error"]


@EMBED
def test_while_the_service_is_out_the_cache_answers_and_says_so(
    cached: httpx.Client, embedding: EmbeddingService, path: str
) -> None:
    known = ROUTES[path]("a text that is known")
    cached.post(path, json=known)
    embedding.serving = False
    embedding.error = TorchlessError(ErrorKind.UNREACHABLE, "going away", retry_after_s=2)
    wait_until(lambda: health_of(cached) == ["not_serving"])
    answer = cached.post(path, json=known)
    assert answer.status_code == 200
    assert (answer.headers[CACHE], answer.headers[DEGRADED]) == ("hit", "embedding")
    refused = cached.post(path, json=ROUTES[path]("a text that is new"))
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert DEGRADED not in refused.headers
    assert metric(cached, "torchless_cache_degraded_requests_total") >= 1


def test_without_a_cache_nothing_is_said_of_one(http: httpx.Client) -> None:
    assert CACHE not in http.post("/embed", json={"inputs": "a"}).headers


def test_models_that_rerank_are_left_out_and_named_while_their_service_is_out(
    http: httpx.Client, reranking: RerankingServer
) -> None:
    assert DEGRADED not in http.get("/v1/models").headers
    reranking.error = TorchlessError(ErrorKind.UNREACHABLE, "going away")
    answer = http.get("/v1/models")
    assert answer.headers[DEGRADED] == "reranking"
    assert [model["id"] for model in answer.json()["data"]] == ["testing/hashes"]


LISTS = ("/v1/models", "/models")
FAILURES = (ErrorKind.UNREACHABLE, ErrorKind.OVERLOADED, ErrorKind.GPU_UNAVAILABLE, ErrorKind.INTERNAL)


@pytest.mark.parametrize("kind", FAILURES)
def test_models_that_embed_are_left_out_and_named_while_their_service_is_out(
    http: httpx.Client, embedding: EmbeddingService, kind: ErrorKind
) -> None:
    embedding.error = TorchlessError(kind, "not now")
    for path in LISTS:
        answer = http.get(path)
        assert (answer.status_code, answer.headers[DEGRADED]) == (200, "embedding")
        assert [(model["id"], model["capabilities"]) for model in answer.json()["data"]] == [
            ("testing/words", ["rerank"])
        ]
    found = http.get("/v1/models/testing/words")
    assert (found.status_code, found.headers[DEGRADED]) == (200, "embedding")
    unknown = http.get("/v1/models/testing/hashes")
    assert unknown.status_code == 503, "whether it is served is not known"
    assert int(unknown.headers["retry-after"]) >= 1
    assert "embedding" in unknown.json()["error"]["message"]
    embedding.reset()
    assert http.get("/v1/models/testing/hashes").status_code == 200
    assert http.get("/v1/models/no/such").status_code == 404


@pytest.mark.parametrize("kind", FAILURES)
def test_no_models_are_listed_while_every_service_is_out(
    http: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer, kind: ErrorKind
) -> None:
    for server in (embedding, reranking):
        server.error = TorchlessError(kind, "not now")
    for path in (*LISTS, "/v1/models/testing/words"):
        answer = http.get(path)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "embedding and reranking" in answer.json()["error"]["message"]


def test_a_service_that_hangs_holds_up_the_list_of_models_no_longer_than_a_check(
    gateway: Gateway, embedding: EmbeddingService, reranking: RerankingServer
) -> None:
    embedding.latency_s = 60
    settings = {"embedding": {"address": embedding.address}, "health": {"timeout_s": 0.2}}
    with gateway(**settings, reranking={"address": reranking.address}) as http:
        answer = http.get("/v1/models")
        assert [model["id"] for model in answer.json()["data"]] == ["testing/words"]
        assert answer.headers[DEGRADED] == "embedding"
    with gateway(**settings) as http:
        assert http.get("/v1/models").status_code == 503
        # Its own time is over before.
        assert http.get("/v1/models", headers={"x-request-timeout-s": "0.1"}).status_code == 504


def test_a_capability_that_is_out_leaves_the_others_alone(
    gateway: Gateway, embedding: EmbeddingService, free_address: str
) -> None:
    nobody = {"address": free_address, "breaker": {"failures": 2}}
    with gateway(embedding={"address": embedding.address}, reranking=nobody) as http:
        for _ in range(3):
            refused = http.post("/rerank", json={"query": "a", "texts": ["a"]})
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert http.post("/embed", json={"inputs": "a"}).status_code == 200


def test_an_open_breaker_is_shown_and_answers_at_once(gateway: Gateway, embedding: EmbeddingService) -> None:
    breaker = {"failures": 3, "open_s": 0.5}
    with gateway(embedding={"address": embedding.address, "breaker": breaker, "retry": {"attempts": 1}}) as http:
        embedding.error = TorchlessError(ErrorKind.UNREACHABLE, "out of order")
        for _ in range(3):
            assert http.post("/embed", json={"inputs": "a"}).status_code == 503
        seen = len(embedding.messages)
        assert http.post("/embed", json={"inputs": "a"}).status_code == 503
        assert len(embedding.messages) == seen, "the service is not asked"
        (endpoint,) = http.get("/health/ready").json()["services"]["embedding"]["endpoints"]
        assert (endpoint["breaker"]["state"], endpoint["breaker"]["trips"]) == ("open", 1)
        assert metric(http, "torchless_client_breaker_state{") == 2
        assert metric(http, "torchless_client_breaker_trips_total{") == 1
        embedding.error = None
        wait_until(lambda: http.post("/embed", json={"inputs": "a"}).status_code == 200)
        assert metric(http, "torchless_client_breaker_state{") == 0


def test_a_service_that_is_back_gets_calls_before_the_pause_is_over(
    gateway: Gateway, embedding: EmbeddingService
) -> None:
    embedding.serving = False
    embedding.error = TorchlessError(ErrorKind.UNREACHABLE, "the service is still loading its model")
    with gateway(embedding={"address": embedding.address, "breaker": {"open_s": 3600}}) as http:
        for _ in range(5):
            assert http.post("/embed", json={"inputs": "a"}).status_code == 503
        assert metric(http, "torchless_client_breaker_state{") == 2
        embedding.error = None
        embedding.serving = True
        wait_until(lambda: http.post("/embed", json={"inputs": "a"}).status_code == 200)


@pytest.mark.parametrize("kind", [ErrorKind.UNREACHABLE, ErrorKind.OVERLOADED, ErrorKind.GPU_UNAVAILABLE])
def test_a_call_refused_by_one_endpoint_is_answered_by_another(
    gateway: Gateway, embedding: EmbeddingService, another: EmbeddingService, kind: ErrorKind
) -> None:
    embedding.error = TorchlessError(kind, "not here")
    with gateway(embedding={"address": f"{embedding.address},{another.address}"}) as http:
        wait_until(lambda: health_of(http) == ["serving", "serving"])
        statuses = {http.post("/embed", json={"inputs": f"a {n}"}).status_code for n in range(20)}
        refused = len(embedding.messages)
    assert statuses == {200}
    assert refused
    assert len(another.messages) >= 20


def test_without_a_device_the_caller_hears_of_it_and_no_breaker_opens(
    gateway: Gateway, embedding: EmbeddingService
) -> None:
    embedding.error = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "no device")
    with gateway(embedding={"address": embedding.address, "breaker": {"failures": 2}}) as http:
        for _ in range(5):
            answer = http.post("/v1/embeddings", json={"input": "a", "model": ""})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gpu_unavailable")
        assert len([each for each in embedding.messages if getattr(each, "texts", None)]) == 5
        assert metric(http, "torchless_client_breaker_state{") == 0


@contextmanager
def held_up(server: RerankingServer | EmbeddingService, requests: int, send: Callable[[], Any]) -> Iterator[None]:
    """So many requests wait for `server` until the end of the block."""
    server.latency_s = 60
    with ThreadPoolExecutor(requests) as threads:
        futures = [threads.submit(send) for _ in range(requests)]
        try:
            wait_until(lambda: len(server.messages) >= requests)
            yield
        finally:
            server.latency_s = 0
        for future in futures:
            future.result()


def test_a_slow_reranker_takes_no_more_than_its_own_share(
    gateway: Gateway, embedding: EmbeddingService, reranking: RerankingServer
) -> None:
    limit = {"initial": 4, "min": 4, "max": 4}
    settings = {"address": reranking.address, "concurrency": limit}
    with gateway(embedding={"address": embedding.address}, reranking=settings) as http:

        def rerank() -> httpx.Response:
            return http.post("/rerank", json={"query": "a", "texts": ["a"]})

        with held_up(reranking, 4, rerank):
            refused = rerank()
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert http.post("/embed", json={"inputs": "a"}).status_code == 200
        reranking.reset()
        assert rerank().status_code == 200


def test_small_requests_share_calls_and_a_bad_one_fails_alone(gateway: Gateway, embedding: EmbeddingService) -> None:
    too_long = " ".join("word" for _ in range(70))
    with gateway(embedding={"address": embedding.address}) as http:

        def embed(text: str) -> int:
            return http.post("/embed", json={"inputs": text, "truncate": False}).status_code

        embedding.latency_s = 0.3
        with ThreadPoolExecutor(12) as threads:
            texts = [f"text {n}" for n in range(11)]
            statuses = list(threads.map(embed, [*texts[:6], too_long, *texts[6:]]))
    assert statuses == [200] * 6 + [413] + [200] * 5
    sizes = [len(each.texts) for each in embedding.messages]
    assert max(sizes) > 1, "nothing was joined"


def test_callers_of_a_service_that_dies_are_not_left_waiting(gateway: Gateway, another: EmbeddingService) -> None:
    another.latency_s = 30
    with gateway(embedding={"address": another.address}) as http, ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(http.post, "/embed", json={"inputs": "a"}) for _ in range(8)]
        wait_until(lambda: len(another.messages) >= 1)
        another.__exit__()
        assert [each.result().status_code for each in sent] == [503] * 8
