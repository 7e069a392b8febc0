"""OpenAI's routes."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.gateway.conftest import Gateway
from torchless.clients.testing import EMBEDDING_MODEL as MODEL
from torchless.clients.testing import EmbeddingService, vector_of
from torchless.contracts.embedding.v1 import embedding_pb2 as pb


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
    aliases = {"text-embedding-3-small": "", "letters": MODEL.id, "gone": "no/such"}
    with gateway(embedding={"address": embedding.address}, models={"aliases": aliases}) as http:
        listed = http.get("/v1/models").json()
        assert [entry["id"] for entry in http.get("/models").json()["data"]] == [e["id"] for e in listed["data"]]
        for entry in listed["data"]:
            assert http.get(f"/v1/models/{entry['id']}").json() == entry
            assert embed(http, input="one", model=entry["id"]).json()["model"] == MODEL.id
        assert http.get("/v1/models/default/not-specified").json()["root"] == MODEL.id
        assert http.get("/v1/models/gone").status_code == 404
    assert listed["object"] == "list"
    facts: dict[str, Any] = {
        "object": "model",
        "created": MODEL.created,
        "owned_by": "torchless",
        "capabilities": ["embed"],
    }
    names = (MODEL.id, "text-embedding-3-small", "letters")
    facts["revisions"] = {"embed": MODEL.revision}
    assert listed["data"] == [{"id": name, "root": MODEL.id, **facts} for name in names]


def test_forms_of_vectors(http: httpx.Client) -> None:
    vector = vector_of("one")
    packed = np.packbits(vector > 0)
    for form, expected in (
        ("float", vector.tolist()),
        (["float"], vector.tolist()),
        ("base64", base64.b64encode(vector.astype("<f4").tobytes()).decode()),
        ("ubinary", packed.tolist()),
        ("binary", (packed.astype(np.int16) - 128).tolist()),
    ):
        # OpenAI's client always sends a format; Jina's field wins.
        answer = embed(http, input="one", embedding_type=form, encoding_format="base64")
        assert answer.json()["data"][0]["embedding"] == pytest.approx(expected), form
    both = embed(http, input="one", embedding_type=["float", "ubinary"])
    assert (both.status_code, both.json()["error"]["param"]) == (400, "embedding_type")


@pytest.mark.parametrize("field", ["normalized", "use_activation", "normalize"])
def test_vectors_that_are_not_scaled(http: httpx.Client, field: str) -> None:
    for value, is_scaled in ((False, False), (True, True), (None, True)):
        found = embed(http, input="one", **{field: value}).json()["data"][0]["embedding"]
        assert np.array_equal(np.float32(found), vector_of("one", normalize=is_scaled))


@pytest.mark.parametrize(
    ("fields", "input_type"),
    [
        ({}, pb.INPUT_TYPE_UNSPECIFIED),
        ({"task": None, "input_type": None}, pb.INPUT_TYPE_UNSPECIFIED),
        ({"task": "retrieval.query"}, pb.INPUT_TYPE_QUERY),
        ({"task": "retrieval.passage"}, pb.INPUT_TYPE_DOCUMENT),
        ({"task": "clustering"}, pb.INPUT_TYPE_UNSPECIFIED),
        ({"input_type": "query"}, pb.INPUT_TYPE_QUERY),
        ({"input_type": "document"}, pb.INPUT_TYPE_DOCUMENT),
        ({"input_type": "passage"}, pb.INPUT_TYPE_DOCUMENT),
    ],
)
def test_purpose_of_inputs(
    http: httpx.Client, embedding: EmbeddingService, fields: dict[str, Any], input_type: int
) -> None:
    assert embed(http, input="one", **fields).status_code == 200
    assert embedding.messages[-1].input_type == input_type


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


def test_a_model_name_too_long_for_grpc_trailers_is_still_not_found(http: httpx.Client) -> None:
    assert embed(http, input="one", model="m" * 20_000).status_code == 404


def test_errors_of_the_service_name_the_callers_field(http: httpx.Client) -> None:
    answer = embed(http, input=["one", "two"], dimensions=5)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "dimensions"
