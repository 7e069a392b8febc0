"""langchain-cohere: https://github.com/langchain-ai/langchain-cohere"""

from __future__ import annotations

from typing import Any

import cohere
import pytest
from cohere.core import ApiError
from langchain_cohere import CohereEmbeddings

from tests.compat.plain_http import MODEL, TEXTS, PlainHTTP, assert_same


def cohere_embeddings(url: str, **options: Any) -> CohereEmbeddings:
    return CohereEmbeddings(**{"cohere_api_key": "unused", "base_url": url, "model": MODEL, **options})


@pytest.fixture
def embeddings(url: str) -> CohereEmbeddings:
    return cohere_embeddings(url)


def test_documents_are_embedded(embeddings: CohereEmbeddings, plain: PlainHTTP) -> None:
    assert_same(embeddings.embed_documents(list(TEXTS)), plain.vectors(TEXTS))


def test_query_is_embedded(embeddings: CohereEmbeddings, plain: PlainHTTP) -> None:
    assert_same(embeddings.embed_query(TEXTS[0]), plain.vector(TEXTS[0]))


async def test_async_calls_embed(embeddings: CohereEmbeddings, plain: PlainHTTP) -> None:
    assert_same(await embeddings.aembed_documents(list(TEXTS)), plain.vectors(TEXTS))
    assert_same(await embeddings.aembed_query(TEXTS[0]), plain.vector(TEXTS[0]))


def test_errors_have_coheres_classes(url: str) -> None:
    # It tries again whatever the error is, four seconds later.
    unknown = cohere_embeddings(url, model="no-such-model", max_retries=1)
    uncut = cohere_embeddings(url, truncate="NONE", max_retries=1)

    with pytest.raises(cohere.NotFoundError):
        unknown.embed_query("x")
    with pytest.raises(ApiError, match="truncate"):
        uncut.embed_documents([TEXTS[-1]])
