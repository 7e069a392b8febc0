"""llama-index: OpenAI's and text-embeddings-inference's integrations.

https://developers.llamaindex.ai/python/framework/module_guides/models/embeddings/
"""

from __future__ import annotations

from typing import Any

import openai
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-untyped]
from llama_index.embeddings.text_embeddings_inference import (  # type: ignore[import-untyped]
    TextEmbeddingsInference,
)

from tests.compat.plain_http import MODEL, TEXTS, PlainHTTP, assert_same


@pytest.fixture(params=["openai", "text-embeddings-inference"])
def embedding(request: pytest.FixtureRequest, url: str) -> Any:
    if request.param == "openai":
        return OpenAIEmbedding(model_name=MODEL, api_base=f"{url}/v1", api_key="unused")
    return TextEmbeddingsInference(model_name=MODEL, base_url=url)


def test_texts_are_embedded(embedding: BaseEmbedding, plain: PlainHTTP) -> None:
    assert_same(embedding.get_text_embedding_batch(list(TEXTS)), plain.vectors(TEXTS))


def test_batches_keep_their_order(embedding: BaseEmbedding, plain: PlainHTTP) -> None:
    embedding.embed_batch_size = 2

    assert_same(embedding.get_text_embedding_batch(list(TEXTS)), plain.vectors(TEXTS))


def test_query_is_embedded(embedding: BaseEmbedding, plain: PlainHTTP) -> None:
    assert_same(embedding.get_query_embedding(TEXTS[0]), plain.vector(TEXTS[0]))
    assert_same(embedding.get_text_embedding(TEXTS[0]), plain.vector(TEXTS[0]))


async def test_async_calls_embed(embedding: BaseEmbedding, plain: PlainHTTP) -> None:
    assert_same(await embedding.aget_text_embedding_batch(list(TEXTS)), plain.vectors(TEXTS))
    assert_same(await embedding.aget_query_embedding(TEXTS[0]), plain.vector(TEXTS[0]))


def test_openais_own_name_of_a_model(url: str, plain: PlainHTTP) -> None:
    embedding = OpenAIEmbedding(model="text-embedding-3-small", api_base=f"{url}/v1", api_key="unused")

    assert_same(embedding.get_text_embedding(TEXTS[0]), plain.vector(TEXTS[0]))


def test_errors_have_openais_classes(url: str) -> None:
    unknown = OpenAIEmbedding(model_name="no-such-model", api_base=f"{url}/v1", api_key="unused")
    short = OpenAIEmbedding(model_name=MODEL, api_base=f"{url}/v1", api_key="unused", dimensions=100)

    with pytest.raises(openai.NotFoundError):
        unknown.get_text_embedding("x")
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        short.get_text_embedding("x")
