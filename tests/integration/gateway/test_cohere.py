"""Cohere's routes."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import pytest

from gateway.encoding.quantization import QUANTIZERS
from torchless.clients.testing import EMBEDDING_MODEL as MODEL
from torchless.clients.testing import EmbeddingService, vector_of
from torchless.contracts.embedding.v1 import embedding_pb2 as pb

TEXTS = ["one", "two words"]


def test_version_1_answers_a_list_of_floats(http: httpx.Client) -> None:
    answer = http.post("/v1/embed", json={"texts": TEXTS, "model": MODEL.id, "input_type": "search_document"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["response_type"] == "embeddings_floats"
    assert body["texts"] == TEXTS
    assert body["meta"] == {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 7}}
    assert np.array_equal(np.array(body["embeddings"], dtype=np.float32), [vector_of(t) for t in TEXTS])


@pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed"])
def test_every_embedding_type_is_answered(http: httpx.Client, path: str) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    body = http.post(path, json={"texts": TEXTS, "embedding_types": types}).json()
    expected = np.stack([vector_of(t) for t in TEXTS])
    assert body["response_type"] == "embeddings_by_type"
    assert list(body["embeddings"]) == types
    assert np.array_equal(np.array(body["embeddings"]["float"], dtype=np.float32), expected)
    assert [base64.b64decode(row) for row in body["embeddings"]["base64"]] == [row.tobytes() for row in expected]
    for name, quantize in QUANTIZERS.items():
        assert body["embeddings"][name] == quantize(expected).tolist()


def test_version_2_defaults_to_float_and_cuts_dimensions(http: httpx.Client) -> None:
    body = http.post("/v2/embed", json={"texts": ["one"], "output_dimension": 8, "embedding_types": None}).json()
    assert list(body["embeddings"]) == ["float"]
    assert body["meta"]["api_version"] == {"version": "2"}
    assert np.array_equal(np.array(body["embeddings"]["float"], dtype=np.float32), [vector_of("one", dimensions=8)])


def test_version_2_takes_mixed_inputs_of_text(http: httpx.Client) -> None:
    inputs = [{"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]
    body = http.post("/v2/embed", json={"inputs": inputs}).json()
    assert np.array_equal(np.array(body["embeddings"]["float"], dtype=np.float32), [vector_of("one\ntwo")])


@pytest.mark.parametrize(
    ("fields", "input_type", "truncation"),
    [
        ({"input_type": "search_query", "truncate": "START"}, pb.INPUT_TYPE_QUERY, pb.TRUNCATION_LEFT),
        ({"input_type": "search_document", "truncate": "NONE"}, pb.INPUT_TYPE_DOCUMENT, pb.TRUNCATION_NONE),
        ({"input_type": "clustering", "truncate": "END"}, pb.INPUT_TYPE_UNSPECIFIED, pb.TRUNCATION_RIGHT),
        ({"input_type": None, "truncate": None, "priority": 3}, pb.INPUT_TYPE_UNSPECIFIED, pb.TRUNCATION_RIGHT),
    ],
)
def test_input_type_and_truncation(
    http: httpx.Client, embedding: EmbeddingService, fields: dict[str, object], input_type: int, truncation: int
) -> None:
    assert http.post("/v2/embed", json={"texts": TEXTS, **fields}).status_code == 200
    assert embedding.messages[-1].input_type == input_type
    assert embedding.messages[-1].truncation == truncation


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/embed", {"texts": TEXTS, "input_type": "image"}, "input_type"),
        ("/v2/embed", {"texts": TEXTS, "images": None, "embedding_types": ["int4"]}, "embedding_types[0]"),
        ("/v2/embed", {"images": ["data:image/png;base64,"]}, "texts"),
        ("/v2/embed", {"texts": TEXTS, "inputs": [{"content": [{"type": "text", "text": "a"}]}]}, "texts"),
        ("/v2/embed", {"inputs": [{"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "type"),
        ("/v2/embed", {"texts": TEXTS, "max_tokens": 10}, "max_tokens"),
        ("/v2/embed", {"texts": TEXTS, "output_dimension": 5}, "output_dimension"),
        ("/v1/embed", {"texts": []}, "texts"),
        ("/v1/embed", {"texts": ["one", ""]}, "texts[1]"),
        ("/v1/embed", {"texts": "one"}, "texts"),
    ],
)
def test_invalid_bodies_are_refused(http: httpx.Client, path: str, body: dict[str, object], said: str) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["detail"] == answer.json()["message"]
    assert said in answer.json()["message"]
