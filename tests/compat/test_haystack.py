"""haystack: OpenAI's embedders, and those of the Hugging Face API against a text-embeddings-inference URL.

https://docs.haystack.deepset.ai/docs/embedders
"""

from __future__ import annotations

from typing import Any

import openai
import pytest
from haystack import Document, Pipeline
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from huggingface_hub.errors import BadRequestError

from tests.compat.plain_http import MODEL, TEXTS, PlainHTTP, assert_same

DOCUMENTS = [Document(content=text) for text in TEXTS]
KEY = Secret.from_token("unused")


def text_embedder(kind: str, url: str) -> Any:
    if kind == "openai":
        return OpenAITextEmbedder(model=MODEL, api_base_url=f"{url}/v1", api_key=KEY)
    return HuggingFaceAPITextEmbedder(api_type="text_embeddings_inference", api_params={"url": url})


def document_embedder(kind: str, url: str) -> Any:
    if kind == "openai":
        return OpenAIDocumentEmbedder(
            model=MODEL, api_base_url=f"{url}/v1", api_key=KEY, batch_size=2, progress_bar=False
        )
    return HuggingFaceAPIDocumentEmbedder(
        api_type="text_embeddings_inference", api_params={"url": url}, batch_size=2, progress_bar=False
    )


@pytest.fixture(params=["openai", "text_embeddings_inference"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_text_embedder_embeds_a_text(kind: str, url: str, plain: PlainHTTP) -> None:
    assert_same(text_embedder(kind, url).run(text=TEXTS[0])["embedding"], plain.vector(TEXTS[0]))


def test_document_embedder_embeds_in_batches(kind: str, url: str, plain: PlainHTTP) -> None:
    answer = document_embedder(kind, url).run(documents=DOCUMENTS)

    assert [document.content for document in answer["documents"]] == list(TEXTS)
    assert_same([document.embedding for document in answer["documents"]], plain.vectors(TEXTS))


async def test_async_embedders_embed(kind: str, url: str, plain: PlainHTTP) -> None:
    text = await text_embedder(kind, url).run_async(text=TEXTS[0])
    documents = await document_embedder(kind, url).run_async(documents=DOCUMENTS)

    assert_same(text["embedding"], plain.vector(TEXTS[0]))
    assert_same([document.embedding for document in documents["documents"]], plain.vectors(TEXTS))


def test_embedder_runs_in_a_pipeline(kind: str, url: str, plain: PlainHTTP) -> None:
    pipeline = Pipeline()
    pipeline.add_component("embedder", document_embedder(kind, url))

    answer = pipeline.run({"embedder": {"documents": DOCUMENTS}})

    assert_same([document.embedding for document in answer["embedder"]["documents"]], plain.vectors(TEXTS))


def test_usage_is_counted_over_batches(url: str, plain: PlainHTTP) -> None:
    answer = document_embedder("openai", url).run(documents=DOCUMENTS)

    assert answer["meta"]["usage"]["total_tokens"] == plain.tokens(TEXTS)


def test_errors_are_those_of_the_client_below(url: str) -> None:
    unknown = OpenAITextEmbedder(model="no-such-model", api_base_url=f"{url}/v1", api_key=KEY)
    short = OpenAITextEmbedder(model=MODEL, api_base_url=f"{url}/v1", api_key=KEY, dimensions=100)

    with pytest.raises(openai.NotFoundError):
        unknown.run(text="x")
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        short.run(text="x")
    with pytest.raises(BadRequestError, match="empty"):
        text_embedder("text_embeddings_inference", url).run(text="")
