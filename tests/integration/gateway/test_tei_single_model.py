"""Routes by which the gateway stands in for a text-embeddings-inference server that has one model."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.reranking_server import RerankingServer, tokens_of
from torchless.clients.testing import EMBEDDING_MODEL, EmbeddingService, vector_of
from torchless.clients.testing import RERANKING_MODEL as MODEL

TEXTS = ["bread needs salt", "swifts sleep"]
RANKS = [{"index": 1, "score": 1.0}, {"index": 0, "score": 0.0}]
KEY = "a-key-of-mine"


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_the_default_route_embeds(http: httpx.Client, path: str) -> None:
    for inputs, texts in (("one", ["one"]), (["one", "two"], ["one", "two"])):
        answer = http.post(path, json={"inputs": inputs, "normalize": True, "options": {"wait_for_model": True}})
        assert np.array_equal(np.float32(answer.json()), [vector_of(text) for text in texts])


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_the_default_route_compares_sentences(http: httpx.Client, path: str) -> None:
    body = {"inputs": {"source_sentence": "one", "sentences": ["one", "two"]}, "parameters": {"truncate": True}}
    answer = http.post(path, json=body)
    assert np.allclose(answer.json(), [1.0, vector_of("one") @ vector_of("two")], atol=1e-6)
    assert answer.json() == http.post("/similarity", json=body).json()


@pytest.mark.parametrize("path", ["/", "/invocations"])
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "inputs"),
        ({"inputs": {"sentences": ["two"]}}, 422, "inputs.source_sentence"),
        ({"inputs": {"source_sentence": "one", "sentences": []}}, 400, "inputs.sentences"),
        ({"inputs": 1}, 422, "inputs"),
        ([], 422, "should be"),
    ],
)
def test_bad_bodies_of_the_default_route(http: httpx.Client, path: str, body: Any, status: int, said: str) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_dify_finds_a_reranker_under_the_base_path(http: httpx.Client) -> None:
    """The requests of langgenius/dify-official-plugins, models/huggingface_tei/models/helper.py."""
    headers = {"Content-Type": "application/json"}
    for base, kind in (("", "embedding"), ("/reranker", "reranker")):
        info = http.get(f"{base}/info", headers=headers).json()
        assert list(info["model_type"]) == [kind]
        assert info["max_input_length"] > 0
        assert info["max_client_batch_size"] > 1
    sent = {"query": "swifts sleep", "texts": TEXTS, "return_text": True}
    found = http.post("/reranker/rerank", json=sent, headers=headers).json()
    assert found == [{**rank, "text": TEXTS[rank["index"]]} for rank in RANKS]
    embedded = http.post("/v1/embeddings", json={"input": ["ping"]}, headers=headers).json()
    assert len(embedded["data"][0]["embedding"]) == EMBEDDING_MODEL.dimensions


def test_info_describes_the_reranking_model(gateway: Gateway, reranking: RerankingServer) -> None:
    settings: dict[str, Any] = {"reranking": {"address": reranking.address}, "limits": {"documents": 7}}
    with gateway(**settings, models={"rerank_aliases": {"words": MODEL.id}}, tei={"rerank_model": "words"}) as http:
        info = http.get("/reranker/info").json()
    assert (info["model_id"], info["model_sha"], info["model_dtype"]) == (MODEL.id, MODEL.revision, MODEL.dtype)
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert (info["max_input_length"], info["max_batch_tokens"]) == (MODEL.max_tokens, MODEL.max_batch_tokens)
    assert info["max_client_batch_size"] == 7
    with gateway(**settings, tei={"rerank_model": "no/such"}) as http:
        assert http.get("/reranker/info").status_code == 404
    with gateway() as http:
        assert http.get("/reranker/info").status_code == 503


@pytest.mark.parametrize("path", ["/reranker", "/reranker/rerank", "/reranker/invocations"])
def test_the_base_path_reranks(http: httpx.Client, path: str) -> None:
    assert http.post(path, json={"query": "swifts sleep", "texts": TEXTS}).json() == RANKS
    refused = http.post(path, json={"query": "swifts sleep", "texts": []})
    assert (refused.status_code, refused.json()["error_type"]) == (400, "Empty")


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/health", "embedding"),
        ("/ping", "embedding"),
        ("/reranker/health", "reranking"),
        ("/reranker/ping", "reranking"),
    ],
)
def test_health_is_that_of_the_model_of_the_path(
    http: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer, path: str, service: str
) -> None:
    asked, other = (embedding, reranking) if service == "embedding" else (reranking, embedding)
    other.serving = False
    assert (http.get(path).status_code, http.get(path).json()) == (200, {})
    asked.serving = False
    answer = http.get(path)
    assert (answer.status_code, answer.json()) == (503, {"error": "unhealthy", "error_type": "Unhealthy"})
    assert http.head(path).status_code == 503


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/predict", "Backend error: Model is not a classifier model"),
        ("/reranker/predict", "Backend error: Model is not a classifier model"),
        ("/embed_sparse", "Backend error: Model is not an embedding model with SPLADE pooling"),
    ],
)
def test_what_no_model_can_do_is_an_error_of_the_backend(
    http: httpx.Client, gateway: Gateway, embedding: EmbeddingService, path: str, said: str
) -> None:
    answer = http.post(path, json={"inputs": "one"})
    assert (answer.status_code, answer.json()["error_type"]) == (424, "Backend")
    assert answer.json()["error"].startswith(said)
    assert http.get(path).status_code == 405
    assert path not in http.get("/openapi.json").json()["paths"]
    with gateway(embedding={"address": embedding.address}, auth={"api_keys": [KEY]}) as keyed:
        assert keyed.post(path, json={"inputs": "one"}).status_code == 401
        assert keyed.post(path, json={"inputs": "one"}, headers={"x-api-key": KEY}).status_code == 424


def test_headers_have_the_sizes_and_times_of_a_request(http: httpx.Client, embedding: EmbeddingService) -> None:
    pair = {"inputs": {"source_sentence": "one", "sentences": ["two", "three"]}}
    for path, body, characters in (
        ("/embed", {"inputs": "einé"}, 4),
        ("/", {"inputs": ["one", "two"]}, 6),
        ("/embed", {"inputs": [5, 6]}, 2),
        ("/embed_all", {"inputs": [[5], [6, 7]]}, 3),
        ("/similarity", pair, 11),
        ("/rerank", {"query": "ab", "texts": ["c", "de"]}, 2 * 2 + 3),
    ):
        headers = http.post(path, json=body).headers
        assert headers["x-compute-characters"] == str(characters), path
        assert headers["x-compute-type"] == "torchless"
        assert headers["x-compute-time"] == headers["x-total-time"]
        assert int(headers["x-compute-tokens"]) > 0
        assert {"x-tokenization-time", "x-queue-time", "x-inference-time"} <= set(headers)
    ranked = http.post("/reranker", json={"query": "ab", "texts": ["c"]}).headers
    assert ranked["x-compute-tokens"] == str(tokens_of("ab", "c"))


def test_a_cached_answer_says_that_nothing_was_computed(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}, cache={"enabled": True}) as http:
        kinds = [http.post("/embed", json={"inputs": "one"}).headers["x-compute-type"] for _ in range(2)]
    assert kinds == ["torchless", "cache"]
