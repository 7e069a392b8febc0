"""openai: https://github.com/openai/openai-python"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import openai
import pytest
import tiktoken

from tests.compat.plain_http import DIMENSIONS, MODEL, TEXTS, PlainHTTP, assert_same


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused") as client:
        yield client


def test_batch_is_embedded(client: openai.OpenAI, plain: PlainHTTP) -> None:
    answer = client.embeddings.create(model=MODEL, input=list(TEXTS))

    assert_same([row.embedding for row in answer.data], plain.vectors(TEXTS))
    assert [row.index for row in answer.data] == list(range(len(TEXTS)))
    assert answer.model == MODEL
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == plain.tokens(TEXTS)


def test_single_text_is_embedded(client: openai.OpenAI, plain: PlainHTTP) -> None:
    answer = client.embeddings.create(model=MODEL, input=TEXTS[0])

    assert_same([row.embedding for row in answer.data], plain.vectors(TEXTS[:1]))


def test_numbers_and_base64_are_the_same_vectors(client: openai.OpenAI) -> None:
    numbers = client.embeddings.create(model=MODEL, input=list(TEXTS), encoding_format="float")
    encoded = client.embeddings.create(model=MODEL, input=list(TEXTS), encoding_format="base64")

    for row, other in zip(numbers.data, encoded.data, strict=True):
        raw = base64.b64decode(str(other.embedding))
        assert_same(row.embedding, np.frombuffer(raw, dtype="<f4"))
        assert len(raw) == 4 * DIMENSIONS


@pytest.mark.usefixtures("cl100k")
def test_token_ids_are_those_of_cl100k(client: openai.OpenAI, plain: PlainHTTP) -> None:
    ids = tiktoken.get_encoding("cl100k_base").encode_batch(list(TEXTS))

    many = client.embeddings.create(model=MODEL, input=ids)
    one = client.embeddings.create(model=MODEL, input=ids[2])

    assert_same([row.embedding for row in many.data], plain.vectors(TEXTS))
    assert many.usage.total_tokens == plain.tokens(TEXTS)
    assert_same([row.embedding for row in one.data], plain.vectors(TEXTS[2:3]))


def test_a_name_of_openais_stands_for_the_model(client: openai.OpenAI, plain: PlainHTTP) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input=TEXTS[0])

    assert_same([row.embedding for row in answer.data], plain.vectors(TEXTS[:1]))
    assert answer.model == MODEL


def test_fields_of_jina_are_obeyed_or_refused(client: openai.OpenAI, plain: PlainHTTP) -> None:
    # The client always requests an encoding; it returns answers that are no text unchanged.
    answer = client.embeddings.create(model=MODEL, input=list(TEXTS), extra_body={"embedding_type": "ubinary"})
    expected = np.packbits(plain.vectors(TEXTS) > 0, axis=1)

    # A value next to zero may have the other sign in a batch of other texts.
    differing = np.unpackbits(np.array([row.embedding for row in answer.data], dtype=np.uint8) ^ expected, axis=1)
    assert differing.sum() <= len(TEXTS)
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model=MODEL, input="x", extra_body={"late_chunking": True})
    assert raised.value.param == "late_chunking"


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, "text-embedding-3-small"]
    for name in (MODEL, "text-embedding-3-small"):
        found = client.models.retrieve(name)
        assert (found.id, found.root) == (name, MODEL)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.embeddings.create(model="no-such-model", input="x")

    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"


def test_dimensions_that_the_model_does_not_have(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model=MODEL, input="x", dimensions=100)

    assert raised.value.param == "dimensions"
    assert str(DIMENSIONS) in raised.value.message


def test_all_dimensions_may_be_asked_for(client: openai.OpenAI, plain: PlainHTTP) -> None:
    answer = client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=DIMENSIONS)

    assert_same([row.embedding for row in answer.data], plain.vectors(TEXTS[:1]))


def test_a_single_empty_text_is_embedded(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input="")

    assert len(answer.data[0].embedding) == DIMENSIONS


def test_a_text_that_may_not_be_truncated(client: openai.OpenAI) -> None:
    answer = client.embeddings.with_raw_response.create(model=MODEL, input=["x", "w " * 2500])
    assert answer.headers["x-torchless-truncated"] == "1"

    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model=MODEL, input=["x", "w " * 2500], extra_body={"truncate": False})
    assert raised.value.type == "invalid_request_error"
    assert raised.value.param == "input[1]"
    assert "has 2502 tokens; the model reads at most 256" in raised.value.message


def test_too_many_inputs_are_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model=MODEL, input=["x"] * 2049)
    assert raised.value.type == "invalid_request_error"


@pytest.mark.parametrize("nothing", [[], [""], ["x", ""]], ids=repr)
def test_empty_input_is_refused(client: openai.OpenAI, nothing: str | list[str]) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model=MODEL, input=nothing)

    assert str(raised.value.param).startswith("input")


async def test_async_client_embeds_and_raises(url: str, plain: PlainHTTP) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused") as client:
        answer = await client.embeddings.create(model=MODEL, input=list(TEXTS))
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="no-such-model", input="x")

    assert_same([row.embedding for row in answer.data], plain.vectors(TEXTS))
