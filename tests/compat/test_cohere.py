"""cohere: https://github.com/cohere-ai/cohere-python, versions 1 and 2 of the API."""

from __future__ import annotations

import base64
from typing import Any

import cohere
import numpy as np
import pytest

from tests.compat.plain_http import DIMENSIONS, MODEL, TEXTS, PlainHTTP, assert_same

EVERY_TYPE = ["float", "int8", "uint8", "binary", "ubinary", "base64"]


@pytest.fixture
def client(url: str) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="unused", base_url=url)


def embed(client: cohere.ClientV2, **more: Any) -> Any:
    return client.embed(**{"model": MODEL, "input_type": "search_document", "embedding_types": ["float"], **more})


def test_version_2_embeds_texts(client: cohere.ClientV2, plain: PlainHTTP) -> None:
    answer = embed(client, texts=list(TEXTS))

    assert_same(answer.embeddings.float_, plain.vectors(TEXTS))
    assert answer.texts == list(TEXTS)
    assert answer.meta.billed_units.input_tokens == plain.tokens(TEXTS)


def test_every_embedding_type_matches_the_floats(client: cohere.ClientV2, plain: PlainHTTP) -> None:
    answer = embed(client, texts=list(TEXTS), embedding_types=EVERY_TYPE)
    expected, vectors = plain.vectors(TEXTS), answer.embeddings
    bits = np.packbits(np.array(vectors.float_) > 0, axis=1)

    assert_same(vectors.float_, expected)
    assert_same([np.frombuffer(base64.b64decode(row), dtype="<f4") for row in vectors.base64], expected)
    assert np.array_equal(vectors.ubinary, bits)
    assert np.array_equal(vectors.binary, bits.astype(np.int16) - 128)
    assert np.array_equal(np.array(vectors.uint8) - 128, vectors.int8)
    cosines = (np.array(vectors.int8) * expected).sum(axis=1) / np.linalg.norm(vectors.int8, axis=1)
    assert cosines.min() > 0.999
    assert np.shape(vectors.ubinary) == (len(TEXTS), DIMENSIONS // 8)


def test_mixed_inputs_embed_as_their_texts(client: cohere.ClientV2, plain: PlainHTTP) -> None:
    answer = embed(client, inputs=[{"content": [{"type": "text", "text": text}]} for text in TEXTS])

    assert_same(answer.embeddings.float_, plain.vectors(TEXTS))


def test_more_texts_than_cohere_takes_at_once_keep_their_order(client: cohere.ClientV2, plain: PlainHTTP) -> None:
    texts = [f"Swift number {number} left the nest." for number in range(100)]

    vectors = np.array(embed(client, texts=texts).embeddings.float_)

    assert vectors.shape == (100, DIMENSIONS)
    assert_same(vectors[[0, 95, 96, 99]], plain.vectors([texts[i] for i in (0, 95, 96, 99)]))


def test_version_1_embeds_texts(url: str, plain: PlainHTTP) -> None:
    client: Any = cohere.Client(api_key="unused", base_url=url)

    floats = client.embed(texts=list(TEXTS), model=MODEL, input_type="search_query")
    by_type = client.embed(
        texts=list(TEXTS), model=MODEL, input_type="search_query", embedding_types=["float", "ubinary"]
    )

    assert floats.response_type == "embeddings_floats"
    assert_same(floats.embeddings, plain.vectors(TEXTS))
    assert by_type.response_type == "embeddings_by_type"
    assert_same(by_type.embeddings.float_, plain.vectors(TEXTS))
    assert np.array_equal(by_type.embeddings.ubinary, np.packbits(np.array(by_type.embeddings.float_) > 0, axis=1))


async def test_async_client_embeds_and_raises(url: str, plain: PlainHTTP) -> None:
    async with cohere.AsyncClientV2(api_key="unused", base_url=url) as client:
        answer = await client.embed(
            texts=list(TEXTS), model=MODEL, input_type="search_query", embedding_types=["float"]
        )
        with pytest.raises(cohere.NotFoundError):
            await client.embed(texts=["x"], model="no-such-model", input_type="search_query", embedding_types=["float"])

    assert_same(answer.embeddings.float_, plain.vectors(TEXTS))


def test_unknown_model_is_not_found(client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.NotFoundError) as raised:
        embed(client, texts=["x"], model="no-such-model")

    assert set(raised.value.body) == {"message", "detail"}


def test_dimensions_that_the_model_does_not_have(client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.BadRequestError) as raised:
        embed(client, texts=["x"], output_dimension=100)

    assert raised.value.body["message"].startswith("output_dimension:")


@pytest.mark.parametrize("texts", [[], ["x", ""]], ids=repr)
def test_empty_input_is_refused(client: cohere.ClientV2, texts: list[str]) -> None:
    with pytest.raises(cohere.BadRequestError):
        embed(client, texts=texts)


def test_a_text_that_may_not_be_cut(client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.BadRequestError) as raised:
        embed(client, texts=["x", TEXTS[-1]], truncate="NONE")

    assert "texts[1]" in raised.value.body["message"]
