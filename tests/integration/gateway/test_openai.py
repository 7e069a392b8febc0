"""OpenAI's routes."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import pytest

from tests.integration.gateway.conftest import Gateway
from torchless.clients.testing import EMBEDDING_MODEL as MODEL
from torchless.clients.testing import EmbeddingService, vector_of


def embed(http: httpx.Client, **body: object) -> httpx.Response:
    return http.post("/v1/embeddings", json=body)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_vectors_are_exactly_the_services(http: httpx.Client, path: str) -> None:
    texts = ["one", "a second text", "мир, 世界, 🌍"]
    answer = http.post(path, json={"input": texts, "model": MODEL.id})
    assert answer.status_code == 200
    body = answer.json()
    assert body["object"] == "list"
    assert body["model"] == MODEL.id
    assert body["usage"] == {"prompt_tokens": 3 + 5 + 5, "total_tokens": 13}
    for index, (text, entry) in enumerate(zip(texts, body["data"], strict=True)):
        assert (entry["object"], entry["index"]) == ("embedding", index)
        assert np.array_equal(np.array(entry["embedding"], dtype=np.float32), vector_of(text))


def test_base64_holds_the_same_float32(http: httpx.Client) -> None:
    data = embed(http, input=["one", "two"], encoding_format="base64").json()["data"]
    for text, entry in zip(["one", "two"], data, strict=True):
        assert base64.b64decode(entry["embedding"]) == vector_of(text).astype("<f4").tobytes()


def test_a_single_text_is_embedded_with_fewer_dimensions(http: httpx.Client) -> None:
    data = embed(http, input="one", dimensions=8).json()["data"]
    assert np.array_equal(np.array(data[0]["embedding"], dtype=np.float32), vector_of("one", dimensions=8))


def test_null_and_unknown_fields_count_as_absent(http: httpx.Client) -> None:
    answer = embed(
        http, input="one", model=None, encoding_format=None, dimensions=None, user=None, modality=None, extra={"a": 1}
    )
    assert answer.status_code == 200
    assert np.array_equal(np.array(answer.json()["data"][0]["embedding"], dtype=np.float32), vector_of("one"))


def test_token_ids_are_read_as_cl100k(http: httpx.Client) -> None:
    one = embed(http, input=[9906, 1917]).json()
    two = embed(http, input=[[9906, 1917], [15339]]).json()
    assert [np.float32(v) for v in one["data"][0]["embedding"]] == list(vector_of("Hello world"))
    assert [np.float32(v) for v in two["data"][1]["embedding"]] == list(vector_of("hello"))


def test_token_ids_of_the_model_are_passed_on(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}, openai={"token_id_vocabulary": "model"}) as http:
        answer = embed(http, input=[[5, 6], [7]])
    assert answer.status_code == 200
    assert [list(one.ids) for one in embedding.messages[-1].token_ids] == [[5, 6], [7]]


def test_a_token_id_out_of_range_is_named(http: httpx.Client) -> None:
    answer = embed(http, input=[[9906], [1, 100_256]])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input[1][1]"
    assert "cl100k_base" in answer.json()["error"]["message"]


def test_models_by_list_id_and_alias(gateway: Gateway, embedding: EmbeddingService) -> None:
    aliases = {"text-embedding-3-small": "", "letters": MODEL.id}
    with gateway(embedding={"address": embedding.address}, models={"aliases": aliases}) as http:
        listed = http.get("/v1/models").json()
        for name in (MODEL.id, "text-embedding-3-small", "letters"):
            assert http.get(f"/v1/models/{name}").json() == listed["data"][0]
            assert embed(http, input="one", model=name).json()["model"] == MODEL.id
    assert listed["object"] == "list"
    facts = {"object": "model", "created": MODEL.created, "owned_by": "torchless", "capabilities": ["embed"]}
    assert listed["data"] == [{"id": MODEL.id, **facts, "revisions": {"embed": MODEL.revision}}]


def test_the_default_request_of_infinitys_client_is_answered(http: httpx.Client) -> None:
    body = {"input": ["one"], "model": "default/not-specified", "dimensions": 0, "modality": "text"}
    answer = http.post("/embeddings", json=body)
    assert answer.status_code == 200
    assert answer.json()["model"] == MODEL.id
    assert http.post("/embeddings", json={**body, "modality": "image"}).status_code == 400


def test_infinitys_list_of_models(http: httpx.Client) -> None:
    entry = http.get("/models").json()["data"][0]
    assert entry["id"] == MODEL.id
    assert entry["stats"] == {}
    assert entry["owned_by"] == "infinity"


def test_an_unknown_model_is_not_found(http: httpx.Client) -> None:
    for answer in (embed(http, input="one", model="no/such"), http.get("/v1/models/no/such")):
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "invalid_request_error")
        assert "no/such" in error["message"]


def test_errors_of_the_service_name_the_callers_field(http: httpx.Client) -> None:
    answer = embed(http, input=["one", "two"], dimensions=5)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "dimensions"
