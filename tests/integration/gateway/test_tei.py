"""The routes of text-embeddings-inference."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.gateway.conftest import Gateway
from torchless.clients.testing import EMBEDDING_MODEL as MODEL
from torchless.clients.testing import EmbeddingService, vector_of
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.errors import invalid_input

LONG = " ".join(["word"] * 100)


def vectors(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return np.array(answer.json(), dtype=np.float32)


def test_embed_answers_a_list_of_vectors(http: httpx.Client) -> None:
    assert np.array_equal(vectors(http.post("/embed", json={"inputs": "one"})), [vector_of("one")])
    several = http.post("/embed", json={"inputs": ["one", "two"]})
    assert np.array_equal(vectors(several), [vector_of("one"), vector_of("two")])
    assert several.headers["x-compute-tokens"] == "6"


def test_embed_options_apply(http: httpx.Client) -> None:
    raw = http.post("/embed", json={"inputs": "one", "normalize": False})
    assert np.array_equal(vectors(raw), [vector_of("one", normalize=False)])
    prompted = http.post("/embed", json={"inputs": "one", "prompt_name": "query", "dimensions": 8})
    assert np.array_equal(vectors(prompted), [vector_of("query: one", dimensions=8)])


def test_embed_takes_token_ids_of_the_model(http: httpx.Client) -> None:
    for given, expected in (([5, 6], [[5, 6]]), ([[5], [6, 7]], [[5], [6, 7]])):
        assert len(vectors(http.post("/embed", json={"inputs": given}))) == len(expected)


@pytest.mark.parametrize(
    ("fields", "truncation"),
    [
        ({}, pb.TRUNCATION_RIGHT),
        ({"truncate": None, "truncation_direction": None}, pb.TRUNCATION_RIGHT),
        ({"truncate": True, "truncation_direction": "Left"}, pb.TRUNCATION_LEFT),
        ({"truncate": True, "truncation_direction": "right"}, pb.TRUNCATION_RIGHT),
        ({"truncate": False, "truncation_direction": "Left"}, pb.TRUNCATION_NONE),
    ],
)
def test_truncation_follows_the_request(
    http: httpx.Client, embedding: EmbeddingService, fields: dict[str, Any], truncation: int
) -> None:
    assert http.post("/embed", json={"inputs": "one", **fields}).status_code == 200
    assert embedding.messages[-1].truncation == truncation


def test_an_over_long_input_is_refused_where_it_may_not_be_cut(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}, limits={"truncate": False}) as http:
        answer = http.post("/embed", json={"inputs": ["one", LONG]})
        cut = http.post("/embed", json={"inputs": LONG, "truncate": True})
        assert http.get("/info").json()["auto_truncate"] is False
    assert answer.status_code == 413
    assert answer.json()["error_type"] == "Validation"
    assert "inputs[1]" in answer.json()["error"]
    assert cut.status_code == 200


def test_embed_all_answers_a_vector_a_token(http: httpx.Client) -> None:
    answer = http.post("/embed_all", json={"inputs": ["one two", "three"]}).json()
    assert [len(text) for text in answer] == [4, 3]
    assert np.array_equal(np.array(answer[0][1], dtype=np.float32), vector_of("one", normalize=False))


def test_similarity_is_the_cosine(http: httpx.Client) -> None:
    body = {"inputs": {"source_sentence": "one", "sentences": ["one", "two"]}, "parameters": None}
    expected = [1.0, float(vector_of("one") @ vector_of("two"))]
    assert np.allclose(vectors(http.post("/similarity", json=body)), expected, atol=1e-6)


def test_similarity_names_the_sentence_at_fault(http: httpx.Client) -> None:
    body = {
        "inputs": {"source_sentence": "one", "sentences": ["two", LONG]},
        "parameters": {"truncate": False},
    }
    answer = http.post("/similarity", json=body)
    assert answer.status_code == 413
    assert "inputs.sentences[1]" in answer.json()["error"]
    body = {"inputs": {"source_sentence": LONG, "sentences": ["two"]}, "parameters": {"truncate": False}}
    assert "inputs.source_sentence:" in http.post("/similarity", json=body).json()["error"]


def test_tokenize_and_decode_are_answered(http: httpx.Client) -> None:
    assert http.post("/tokenize", json={"inputs": "one two"}).json() == [
        [
            {"id": 1, "text": "[CLS]", "special": True, "start": None, "stop": None},
            {"id": 3, "text": "one", "special": False, "start": 0, "stop": 3},
            {"id": 4, "text": "two", "special": False, "start": 4, "stop": 7},
            {"id": 2, "text": "[SEP]", "special": True, "start": None, "stop": None},
        ]
    ]
    plain = http.post("/tokenize", json={"inputs": ["one", "two"], "add_special_tokens": False}).json()
    assert [[token["text"] for token in text] for text in plain] == [["one"], ["two"]]
    assert http.post("/decode", json={"ids": [3, 4]}).json() == ["3 4"]
    assert http.post("/decode", json={"ids": [[3], [4]], "skip_special_tokens": None}).json() == ["3", "4"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/decode", {"ids": [[3], [99_999]]}, "ids[1][0]:"),
        ("/decode", {"ids": [3, 99_999]}, "ids[1]:"),
        ("/tokenize", {"inputs": "one", "prompt_name": "no such"}, "prompt_name:"),
    ],
)
def test_inputs_outside_the_vocabulary_get_422(http: httpx.Client, path: str, body: dict[str, Any], said: str) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "Tokenizer"
    assert answer.json()["error"].startswith(said)


def test_more_than_is_tokenized_or_decoded_at_once(gateway: Gateway, embedding: EmbeddingService) -> None:
    limits = {"tokenize_characters": 10}
    with gateway(embedding={"address": embedding.address}, limits=limits) as http:
        for path, fits, too_many, said in (
            ("/tokenize", {"inputs": ["a" * 5, "b" * 5]}, {"inputs": ["a" * 5, "b" * 6]}, "inputs: has 11 characters"),
            ("/tokenize", {"inputs": "a" * 10}, {"inputs": "a" * 11}, "inputs: has 11 characters"),
            ("/decode", {"ids": [[1] * 5, [2] * 5]}, {"ids": [[1] * 5, [2] * 6]}, "ids: has 11 token ids"),
            ("/decode", {"ids": [1] * 10}, {"ids": [1] * 11}, "ids: has 11 token ids"),
        ):
            assert http.post(path, json=fits).status_code == 200
            embedding.requests.clear()
            refused = http.post(path, json=too_many)
            assert (refused.status_code, refused.json()["error_type"]) == (413, "Validation")
            assert refused.json()["error"].startswith(said)
            assert embedding.messages == []


def test_tokenize_takes_as_many_texts_as_embed(http: httpx.Client, embedding: EmbeddingService) -> None:
    texts = [f"{'word ' * 400}{number}" for number in range(300)]
    assert http.post("/embed", json={"inputs": texts}).status_code == 200
    embedding.requests.clear()
    answer = http.post("/tokenize", json={"inputs": texts, "add_special_tokens": False})
    assert [text[-1]["text"] for text in answer.json()] == [str(number) for number in range(300)]
    assert sum(len(call.texts) for call in embedding.messages) == 300
    assert 1 < len(embedding.messages) < 10
    assert all(sum(map(len, call.texts)) <= 200_000 for call in embedding.messages)
    assert http.post("/tokenize", json={"inputs": "w " * 300_000}).status_code == 200


def test_errors_of_later_parts_name_the_text(http: httpx.Client, embedding: EmbeddingService) -> None:
    texts = ["word " * 30_000] * 3
    embedding.fail_next(invalid_input(("texts", 0), "is wrong"))
    answer = http.post("/tokenize", json={"inputs": texts})
    assert answer.json()["error"] == "inputs[0]: is wrong"


def test_info_describes_the_model(http: httpx.Client) -> None:
    info = http.get("/info").json()
    assert info["model_id"] == MODEL.id
    assert info["model_sha"] == MODEL.revision
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["max_batch_tokens"]) == (MODEL.max_tokens, MODEL.max_batch_tokens)
    assert (info["max_client_batch_size"], info["auto_truncate"]) == (2048, True)


def test_a_configured_model_that_is_not_served(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}, tei={"model": "no/such"}) as http:
        for answer in (http.get("/info"), http.post("/embed", json={"inputs": "one"})):
            assert answer.status_code == 404
            assert answer.json()["error_type"] == "Validation"
