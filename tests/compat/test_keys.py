"""A gateway that requires a key accepts each client with its user's key, and refuses any other key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import cohere
import huggingface_hub.errors
import litellm
import openai
import pydantic
import pytest
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.jina import JinaRanker
from huggingface_hub import InferenceClient
from infinity_client import AuthenticatedClient, Client
from infinity_client.api.default import rerank
from infinity_client.errors import UnexpectedStatus
from infinity_client.models import RerankInput
from langchain_cohere import CohereRerank
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference  # type: ignore[import-untyped]
from llama_index.postprocessor.cohere_rerank import CohereRerank as CoherePostprocessor  # type: ignore[import-untyped]
from llama_index.postprocessor.jinaai_rerank import JinaRerank  # type: ignore[import-untyped]
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference  # type: ignore[import-untyped]

from tests.compat.keyed_gateway import KEY, keyed_gateway
from tests.compat.plain_http import MODEL
from tests.running_stack import RunningStack

QUERY = "How do swifts sleep?"
TEXTS = ["Bread needs salt.", "Swifts sleep on the wing."]

Index = int


@pytest.fixture(scope="module")
def keyed_url(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with keyed_gateway(stack, tmp_path_factory.mktemp("keyed")) as url:
        yield url


def with_cohere(url: str, key: str) -> Index:
    return cohere.ClientV2(key, base_url=url).rerank(model=MODEL, query=QUERY, documents=TEXTS).results[0].index


def with_langchain_cohere(url: str, key: str) -> Index:
    reranker = CohereRerank(model=MODEL, base_url=url, cohere_api_key=key)  # type: ignore[arg-type]
    found = reranker.compress_documents([LangChainDocument(text) for text in TEXTS], QUERY)
    return TEXTS.index(found[0].page_content)


def with_llama_index(postprocessor: Any) -> Index:
    found = postprocessor.postprocess_nodes([NodeWithScore(node=TextNode(text=text)) for text in TEXTS], None, QUERY)
    return TEXTS.index(found[0].node.text)


def with_haystack(ranker: Any) -> Index:
    found = ranker.run(query=QUERY, documents=[Document(content=text) for text in TEXTS])
    return TEXTS.index(found["documents"][0].content)


def with_litellm(provider: str, url: str, key: str) -> Index:
    answer: Any = litellm.rerank(f"{provider}/{MODEL}", query=QUERY, documents=TEXTS, api_base=url, api_key=key)
    return int(answer.results[0]["index"])


def with_infinity_client(url: str, key: str, **header: str) -> Index:
    with AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True, **header) as client:
        answer: Any = rerank.sync(client=client, body=RerankInput(query=QUERY, documents=TEXTS))
    return int(answer.results[0].index)


def with_openai(url: str, key: str) -> Index:
    answer = openai.OpenAI(base_url=f"{url}/v1", api_key=key).embeddings.create(model=MODEL, input=TEXTS)
    return answer.data[1].index


def with_huggingface_hub(url: str, key: str) -> Index:
    scores = InferenceClient(model=url, token=key).sentence_similarity(QUERY, TEXTS, model=f"{url}/similarity")
    return scores.index(max(scores))


def with_llama_index_embedding(url: str, key: str) -> Index:
    embedding = TextEmbeddingsInference(model_name=MODEL, base_url=url, auth_token=key)
    return len(embedding.get_text_embedding_batch(TEXTS)) - 1


CLIENTS: dict[str, tuple[Callable[[str, str], Index], type[Exception]]] = {
    "cohere": (with_cohere, cohere.UnauthorizedError),
    "langchain-cohere": (with_langchain_cohere, cohere.UnauthorizedError),
    "llama-index, Cohere": (
        lambda url, key: with_llama_index(CoherePostprocessor(model=MODEL, base_url=url, api_key=key)),
        cohere.UnauthorizedError,
    ),
    "llama-index, Jina": (
        lambda url, key: with_llama_index(JinaRerank(model=MODEL, base_url=url, api_key=key)),
        RuntimeError,
    ),
    # It sends the key without a scheme and checks no status: the error body is shorter than its list of texts.
    "llama-index, TEI": (
        lambda url, key: with_llama_index(TextEmbeddingInference(base_url=url, auth_token=key)),
        AssertionError,
    ),
    "llama-index, TEI, embeddings": (with_llama_index_embedding, pydantic.ValidationError),
    "haystack, Cohere": (
        lambda url, key: with_haystack(CohereRanker(MODEL, api_base_url=url, api_key=Secret.from_token(key))),
        cohere.UnauthorizedError,
    ),
    "haystack, Jina": (
        lambda url, key: with_haystack(JinaRanker(MODEL, base_url=f"{url}/rerank", api_key=Secret.from_token(key))),
        RuntimeError,
    ),
    "haystack, TEI": (
        lambda url, key: with_haystack(HuggingFaceTEIRanker(url=url, token=Secret.from_token(key))),
        RuntimeError,
    ),
    **{
        f"litellm, {provider}": (
            lambda url, key, provider=provider: with_litellm(provider, url, key),
            litellm.exceptions.APIConnectionError,
        )
        for provider in ("cohere", "jina_ai", "infinity", "hosted_vllm", "huggingface")
    },
    "infinity-client": (with_infinity_client, UnexpectedStatus),
    "infinity-client, X-Api-Key": (
        lambda url, key: with_infinity_client(url, key, prefix="", auth_header_name="X-Api-Key"),
        UnexpectedStatus,
    ),
    "openai": (with_openai, openai.AuthenticationError),
    "huggingface_hub": (with_huggingface_hub, huggingface_hub.errors.HfHubHTTPError),
}
"""How each client finds the better one of two texts, and what it raises where its key is not let in."""


@pytest.fixture(params=CLIENTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.usefixtures("litellm_has_asked_huggingface")
def test_client_with_the_key_is_accepted(name: str, keyed_url: str) -> None:
    asks, _ = CLIENTS[name]

    assert asks(keyed_url, KEY) == 1


def test_client_with_another_key_is_refused(name: str, keyed_url: str) -> None:
    asks, error = CLIENTS[name]

    with pytest.raises(error):
        asks(keyed_url, "not that key at all")


def test_clients_without_a_key_are_not_let_in(keyed_url: str) -> None:
    with pytest.raises(RuntimeError, match="401"):
        with_haystack(HuggingFaceTEIRanker(url=keyed_url, token=None))
    with Client(base_url=keyed_url) as client:
        answer = rerank.sync_detailed(client=client, body=RerankInput(query=QUERY, documents=TEXTS))
    assert answer.status_code == HTTPStatus.UNAUTHORIZED
