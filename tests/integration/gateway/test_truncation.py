"""An input that is longer than the model reads is truncated and counted, or refused where the caller wants that."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.error_bodies import message_of
from tests.integration.gateway.reranking_server import RerankingServer
from torchless.clients.testing import EmbeddingService, vector_of

LONG = " ".join(["word"] * 70)
HEADER = "x-torchless-truncated"
EMBEDDING: dict[str, tuple[str, dict[str, Any], str]] = {
    "openai": ("/v1/embeddings", {"input": [LONG, "one", LONG]}, "input[0]"),
    "infinity": ("/embeddings", {"input": [LONG, "one", LONG]}, "input[0]"),
    "tei": ("/embed", {"inputs": [LONG, "one", LONG]}, "inputs[0]"),
    "tei tokens": ("/embed_all", {"inputs": [LONG, "one", LONG]}, "inputs[0]"),
    "tei similarity": (
        "/similarity",
        {"inputs": {"source_sentence": LONG, "sentences": ["one", LONG]}},
        "inputs.source_sentence",
    ),
    "cohere 1": ("/v1/embed", {"texts": [LONG, "one", LONG]}, "texts[0]"),
    "cohere 2": ("/v2/embed", {"texts": [LONG, "one", LONG]}, "texts[0]"),
}
RERANKING: dict[str, tuple[str, dict[str, Any], str]] = {
    "cohere 1": ("/v1/rerank", {"query": "a", "documents": ["one", LONG, LONG]}, "documents[1]"),
    "cohere 2": ("/v2/rerank", {"query": "a", "documents": ["one", LONG, LONG]}, "documents[1]"),
    "documents": ("/rerank", {"query": "a", "documents": ["one", LONG, LONG]}, "documents[1]"),
    "texts": ("/rerank", {"query": "a", "texts": ["one", LONG, LONG]}, "texts[1]"),
    "pairs": ("/score", {"text_1": "a", "text_2": ["one", LONG, LONG]}, "text_2[1]"),
}
ROUTES = {**{f"embed: {name}": each for name, each in EMBEDDING.items()}, **RERANKING}
FAMILIES = {"/rerank": "shared", "/score": "vllm", "/v1/embeddings": "openai", "/embeddings": "openai"}


@pytest.fixture
def both(gateway: Gateway, embedding: EmbeddingService, reranking: RerankingServer) -> Iterator[httpx.Client]:
    with gateway(embedding={"address": embedding.address}, reranking={"address": reranking.address}) as http:
        yield http


@pytest.fixture
def refusing(gateway: Gateway, embedding: EmbeddingService, reranking: RerankingServer) -> Iterator[httpx.Client]:
    """A gateway that refuses long inputs unless the request says otherwise."""
    addresses: dict[str, Any] = {"embedding": {"address": embedding.address}}
    addresses["reranking"] = {"address": reranking.address}
    with gateway(limits={"truncate": False}, **addresses) as http:
        yield http


def refused(answer: httpx.Response, path: str, named: str) -> None:
    family = FAMILIES.get(path, "cohere" if path.startswith("/v") else "tei")
    family = "tei" if named.startswith("texts") and path == "/rerank" else family
    assert answer.status_code == (413 if family == "tei" else 400)
    assert message_of(family, answer).startswith(f"{named}: has ")
    assert HEADER not in answer.headers


@pytest.mark.parametrize(("path", "body", "named"), ROUTES.values(), ids=ROUTES)
def test_truncated_inputs_are_counted_in_a_header(
    both: httpx.Client, path: str, body: dict[str, Any], named: str
) -> None:
    answer = both.post(path, json=body)
    assert (answer.status_code, answer.headers[HEADER]) == (200, "2")
    short = {name: "one" if isinstance(value, str) else ["one"] for name, value in body.items()}
    if path != "/similarity":
        assert HEADER not in both.post(path, json=short).headers


def test_truncated_inputs_are_counted_by_route(both: httpx.Client) -> None:
    name = 'torchless_gateway_truncated_inputs_total{route="/embed"}'
    assert name not in both.get("/metrics").text
    both.post("/embed", json={"inputs": [LONG, LONG, "one"]})
    assert f"{name} 2.0" in both.get("/metrics").text
    both.post("/embed", json={"inputs": LONG})
    assert f"{name} 3.0" in both.get("/metrics").text


@pytest.mark.parametrize(("path", "body", "named"), ROUTES.values(), ids=ROUTES)
def test_every_family_refuses_where_the_gateway_is_configured_to(
    refusing: httpx.Client, path: str, body: dict[str, Any], named: str
) -> None:
    refused(refusing.post(path, json=body), path, named)


@pytest.mark.parametrize(
    ("name", "refuses", "truncates"),
    [
        ("openai", {"truncate": False}, {"truncate": True}),
        ("openai", {"truncate": False}, {"truncate_prompt_tokens": -1}),
        ("tei", {"truncate": False}, {"truncate": True}),
        ("tei tokens", {"truncate": False}, {"truncate": True}),
        ("cohere 1", {"truncate": "NONE"}, {"truncate": "END"}),
        ("cohere 2", {"truncate": "NONE"}, {"truncate": "START"}),
    ],
)
def test_the_request_decides_where_its_api_has_a_field(
    both: httpx.Client, refusing: httpx.Client, name: str, refuses: dict[str, Any], truncates: dict[str, Any]
) -> None:
    path, body, named = EMBEDDING[name]
    refused(both.post(path, json={**body, **refuses}), path, named)
    assert refusing.post(path, json={**body, **truncates}).headers[HEADER] == "2"


def test_texts_to_rerank_are_refused_or_truncated_as_the_request_says(
    both: httpx.Client, refusing: httpx.Client
) -> None:
    path, body, named = RERANKING["texts"]
    refused(both.post(path, json={**body, "truncate": False}), path, named)
    assert refusing.post(path, json={**body, "truncate": True}).headers[HEADER] == "2"
    for name in ("cohere 1", "documents", "pairs"):
        path, body, _ = RERANKING[name]
        assert refusing.post(path, json={**body, "truncate_prompt_tokens": -1}).headers[HEADER] == "2"


def test_the_end_that_is_truncated_is_that_of_the_request(both: httpx.Client, embedding: EmbeddingService) -> None:
    for side, number in (("left", 2), ("right", 1), (None, 1)):
        assert both.post("/v1/embeddings", json={"input": "one", "truncation_side": side}).status_code == 200
        assert embedding.messages[-1].truncation == number


def test_contradicting_fields_are_refused(both: httpx.Client) -> None:
    body = {"input": "one", "truncate": False, "truncate_prompt_tokens": -1}
    error = both.post("/v1/embeddings", json=body).json()["error"]
    assert (error["param"], error["type"]) == ("truncate", "invalid_request_error")
    assert both.post("/v1/embeddings", json={"input": "one", "truncate_prompt_tokens": 5}).status_code == 400


def test_a_cached_vector_of_a_truncated_text_says_so(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}, cache={"enabled": True}) as http:
        first = http.post("/v1/embeddings", json={"input": ["one", LONG]})
        again = http.post("/v1/embeddings", json={"input": [LONG, "one", LONG]})
        short = http.post("/v1/embeddings", json={"input": "one"})
    assert (first.headers[HEADER], first.headers["x-torchless-cache"]) == ("1", "miss")
    assert (again.headers[HEADER], again.headers["x-torchless-cache"]) == ("2", "hit")
    assert (HEADER in short.headers, short.headers["x-torchless-cache"]) == (False, "hit")


def test_members_of_a_joined_call_hear_only_of_their_own_texts(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}) as http:

        def embed(number: int) -> str | None:
            text = f"{LONG} {number}" if number % 3 == 0 else f"text {number}"
            return http.post("/embed", json={"inputs": ["one", text]}).headers.get(HEADER)

        embedding.latency_s = 0.3
        with ThreadPoolExecutor(12) as threads:
            found = list(threads.map(embed, range(12)))
    assert found == ["1" if number % 3 == 0 else None for number in range(12)]
    assert max(len(each.texts) for each in embedding.messages) > 2, "nothing was joined"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_a_single_empty_text_is_embedded_on_openais_routes(both: httpx.Client, path: str) -> None:
    answer = both.post(path, json={"input": ""})
    assert answer.status_code == 200
    (entry,) = answer.json()["data"]
    np.testing.assert_array_equal(np.array(entry["embedding"], dtype=np.float32), vector_of(""))
    for nothing in (["a", ""], [""], []):
        assert both.post(path, json={"input": nothing}).status_code == 400


@pytest.mark.parametrize("path", ["/embed", "/embed_all", "/tokenize"])
def test_a_single_empty_text_is_refused_at_text_embeddings_inference(both: httpx.Client, path: str) -> None:
    answer = both.post(path, json={"inputs": ""})
    assert (answer.status_code, answer.json()["error_type"]) == (400, "Empty")


def test_texts_of_any_length_up_to_the_body_limit_reach_the_service(
    both: httpx.Client, embedding: EmbeddingService
) -> None:
    text = "word " * 4_000_000
    for name in ("openai", "tei", "cohere 2"):
        path, body, _ = EMBEDDING[name]
        answer = both.post(path, json={field: [text] for field in body})
        assert (answer.status_code, answer.headers[HEADER]) == (200, "1")
        assert embedding.messages[-1].texts[0] == text
