"""langchain-huggingface without torch: HuggingFaceEndpointEmbeddings.

https://docs.langchain.com/oss/python/integrations/embeddings/text_embeddings_inference
"""

from __future__ import annotations

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import BadRequestError
from langchain_huggingface import HuggingFaceEndpointEmbeddings

from tests.compat.plain_http import MODEL, TEXTS, PlainHTTP, assert_same


@pytest.fixture(params=["URL as the model", "clients put in"])
def embeddings(request: pytest.FixtureRequest, url: str) -> HuggingFaceEndpointEmbeddings:
    """By its URL, as documented; and in the way that is left since 1.2.2 takes no URL."""
    if request.param == "URL as the model":
        return HuggingFaceEndpointEmbeddings(model=url)
    embeddings = HuggingFaceEndpointEmbeddings(model=MODEL)
    embeddings.client, embeddings.async_client = InferenceClient(model=url), AsyncInferenceClient(model=url)
    return embeddings


def test_documents_are_embedded(embeddings: HuggingFaceEndpointEmbeddings, plain: PlainHTTP) -> None:
    assert_same(embeddings.embed_documents(list(TEXTS)), plain.vectors(TEXTS))


def test_query_is_embedded(embeddings: HuggingFaceEndpointEmbeddings, plain: PlainHTTP) -> None:
    assert_same(embeddings.embed_query(TEXTS[0]), plain.vector(TEXTS[0]))


async def test_async_calls_embed(embeddings: HuggingFaceEndpointEmbeddings, plain: PlainHTTP) -> None:
    async with embeddings.async_client:
        assert_same(await embeddings.aembed_documents(list(TEXTS)), plain.vectors(TEXTS))
        assert_same(await embeddings.aembed_query(TEXTS[0]), plain.vector(TEXTS[0]))


def test_options_are_accepted(url: str, plain: PlainHTTP) -> None:
    embeddings = HuggingFaceEndpointEmbeddings(model=url, model_kwargs={"normalize": True, "truncate": True})

    assert_same(embeddings.embed_documents(list(TEXTS)), plain.vectors(TEXTS))


def test_empty_text_is_refused(embeddings: HuggingFaceEndpointEmbeddings) -> None:
    with pytest.raises(BadRequestError, match="empty"):
        embeddings.embed_documents(["x", ""])
