"""langchain-openai: https://docs.langchain.com/oss/python/integrations/embeddings/openai"""

from __future__ import annotations

from typing import Any

import numpy as np
import openai
import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings

from tests.compat.plain_http import MODEL, TEXTS, PlainHTTP, assert_same

pytestmark = pytest.mark.usefixtures("cl100k")


def openai_embeddings(url: str, **options: Any) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(**{"model": MODEL, "base_url": f"{url}/v1", "api_key": "unused", **options})


@pytest.fixture
def embeddings(url: str) -> OpenAIEmbeddings:
    """With every default, so that texts are sent as ids of cl100k_base."""
    return openai_embeddings(url)


def test_documents_are_embedded(embeddings: OpenAIEmbeddings, plain: PlainHTTP) -> None:
    assert embeddings.check_embedding_ctx_length
    assert_same(embeddings.embed_documents(list(TEXTS)), plain.vectors(TEXTS))


def test_query_is_embedded(embeddings: OpenAIEmbeddings, plain: PlainHTTP) -> None:
    assert_same(embeddings.embed_query(TEXTS[2]), plain.vector(TEXTS[2]))


async def test_async_calls_embed(embeddings: OpenAIEmbeddings, plain: PlainHTTP) -> None:
    assert_same(await embeddings.aembed_documents(list(TEXTS)), plain.vectors(TEXTS))
    assert_same(await embeddings.aembed_query(TEXTS[0]), plain.vector(TEXTS[0]))


def test_texts_instead_of_ids(url: str, plain: PlainHTTP) -> None:
    embeddings = openai_embeddings(url, check_embedding_ctx_length=False)

    assert_same(embeddings.embed_documents(list(TEXTS)), plain.vectors(TEXTS))


def test_more_texts_than_one_request_takes_from_it(url: str, plain: PlainHTTP) -> None:
    embeddings = openai_embeddings(url, chunk_size=2)

    assert_same(embeddings.embed_documents(list(TEXTS)), plain.vectors(TEXTS))


def test_a_text_longer_than_openais_limit_is_the_mean_of_its_parts(
    embeddings: OpenAIEmbeddings, plain: PlainHTTP
) -> None:
    encoding = tiktoken.get_encoding("cl100k_base")
    text = "The swift sleeps while it flies. " * 1500
    ids = encoding.encode(text)
    parts = [ids[:8191], ids[8191:]]
    assert parts[1]
    mean = np.average(
        plain.vectors([encoding.decode(part) for part in parts]), axis=0, weights=[len(part) for part in parts]
    )

    assert_same(embeddings.embed_documents([text]), mean[None] / np.linalg.norm(mean))


def test_openais_own_name_of_a_model(url: str, plain: PlainHTTP) -> None:
    embeddings = openai_embeddings(url, model="text-embedding-3-small")

    assert_same(embeddings.embed_query(TEXTS[0]), plain.vector(TEXTS[0]))


def test_errors_have_openais_classes(url: str) -> None:
    unknown = openai_embeddings(url, model="no-such-model")
    short = openai_embeddings(url, dimensions=100)

    with pytest.raises(openai.NotFoundError):
        unknown.embed_query("x")
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        short.embed_query("x")
