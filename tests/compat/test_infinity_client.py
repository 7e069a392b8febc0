"""infinity-client, the generated client of infinity's API: https://github.com/michaelfeil/infinity"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

import pytest
from infinity_client import Client
from infinity_client.api.default import embeddings, health, models
from infinity_client.models import EmbeddingEncodingFormat, OpenAIEmbeddingInputText, OpenAIEmbeddingResult
from infinity_client.models.open_ai_model_info import OpenAIModelInfo
from infinity_client.vision_client import InfinityVisionAPI

from tests.compat.plain_http import MODEL, TEXTS, PlainHTTP, assert_same


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(base_url=url) as client:
        yield client


def test_with_no_model_named(client: Client, plain: PlainHTTP) -> None:
    answer = embeddings.sync(client=client, body=OpenAIEmbeddingInputText(input_=list(TEXTS)))

    assert isinstance(answer, OpenAIEmbeddingResult)
    assert_same([row.embedding for row in answer.data], plain.vectors(TEXTS))
    assert answer.model == MODEL
    assert answer.usage.total_tokens == plain.tokens(TEXTS)


def test_single_text_with_a_model(client: Client, plain: PlainHTTP) -> None:
    body = OpenAIEmbeddingInputText(
        input_=TEXTS[0], model=MODEL, encoding_format=EmbeddingEncodingFormat.FLOAT, user="someone"
    )

    answer = embeddings.sync(client=client, body=body)

    assert isinstance(answer, OpenAIEmbeddingResult)
    assert_same([row.embedding for row in answer.data], plain.vectors(TEXTS[:1]))


async def test_async_client_embeds(url: str, plain: PlainHTTP) -> None:
    async with Client(base_url=url) as client:
        answer = await embeddings.asyncio(client=client, body=OpenAIEmbeddingInputText(input_=list(TEXTS)))

    assert isinstance(answer, OpenAIEmbeddingResult)
    assert_same([row.embedding for row in answer.data], plain.vectors(TEXTS))


def test_models_and_health_are_answered(client: Client) -> None:
    served = models.sync(client=client)

    assert isinstance(served, OpenAIModelInfo)
    assert not isinstance(served.data, list) or served.data[0].id == MODEL
    assert health.sync_detailed(client=client).status_code == HTTPStatus.OK


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (OpenAIEmbeddingInputText(input_=["x"], model="no-such-model"), HTTPStatus.NOT_FOUND),
        (OpenAIEmbeddingInputText(input_=["x"], dimensions=100), HTTPStatus.BAD_REQUEST),
        (OpenAIEmbeddingInputText(input_=["x", ""]), HTTPStatus.BAD_REQUEST),
    ],
    ids=["model", "dimensions", "empty"],
)
def test_errors_have_their_status(client: Client, body: OpenAIEmbeddingInputText, status: HTTPStatus) -> None:
    answer = embeddings.sync_detailed(client=client, body=body)

    assert answer.status_code == status
    assert answer.parsed is None


def test_the_client_with_a_thread_pool(url: str, plain: PlainHTTP) -> None:
    client = InfinityVisionAPI(url=url, model=MODEL)  # asks for base64
    try:
        vectors, tokens = client.embed(model=MODEL, sentences=list(TEXTS)).result(timeout=60)
    finally:
        client.tp.shutdown()
        client.session.close()

    assert_same([row for (row,) in vectors], plain.vectors(TEXTS))
    assert tokens == plain.tokens(TEXTS)
