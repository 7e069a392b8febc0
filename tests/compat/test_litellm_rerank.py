"""litellm's rerank, by each of its providers that speaks an API of the gateway: https://docs.litellm.ai/docs/rerank"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import litellm
import pytest

from tests.compat.plain_http import MODEL, PlainHTTP
from tests.compat.ranking import NUMBERS_OF_BEST, PASSAGES, QUERY, assert_ranked

pytestmark = pytest.mark.usefixtures("litellm_has_asked_huggingface")


@dataclass(frozen=True, slots=True)
class Provider:
    """One way of litellm to the gateway."""

    name: str
    """litellm's prefix of the model's name."""
    path: str = ""
    """What is appended to the gateway's URL; litellm appends the rest."""
    gives_documents: bool = True
    """Whether results hold the documents that litellm asks for unless told otherwise."""
    passages: tuple[str, ...] = PASSAGES
    """What it is asked to put in order."""


COHERE_2 = Provider("cohere")
COHERE_1 = Provider("cohere", "/v1/rerank")
JINA = Provider("jina_ai")
# infinity's and vLLM's requests to /rerank are the same, and litellm wants the documents as texts from the one and as
# objects from the other. The gateway answers neither.
INFINITY = Provider("infinity", gives_documents=False)
VLLM = Provider("hosted_vllm", gives_documents=False)
VLLM_1 = Provider("hosted_vllm", "/v1")
# litellm asks text-embeddings-inference for an error where a passage is longer than the model reads.
HUGGING_FACE = Provider("huggingface", passages=tuple(passage[:120] for passage in PASSAGES))
# Those whose requests name a model, and take documents as objects. Text-embeddings-inference's do neither.
NAMING = (COHERE_2, COHERE_1, JINA, INFINITY, VLLM, VLLM_1)
PROVIDERS = (*NAMING, HUGGING_FACE)


def by(*providers: Provider) -> pytest.MarkDecorator:
    """Runs a test with each of `providers`."""
    return pytest.mark.parametrize("provider", providers, ids=lambda each: f"{each.name}{each.path}")


def asked(provider: Provider, url: str, **more: Any) -> dict[str, Any]:
    """The arguments of a call."""
    given = {
        "model": f"{provider.name}/{MODEL}",
        "query": QUERY,
        "documents": list(provider.passages),
        "api_base": url + provider.path,
        "api_key": "unused",
    }
    return given | more


def pairs(answer: Any) -> list[tuple[int, float]]:
    return [(result["index"], result["relevance_score"]) for result in answer.results]


@by(*PROVIDERS)
@pytest.mark.parametrize("top_n", NUMBERS_OF_BEST)
def test_documents_are_ranked(provider: Provider, url: str, plain: PlainHTTP, top_n: int) -> None:
    answer: Any = litellm.rerank(**asked(provider, url, top_n=top_n))

    assert_ranked(pairs(answer), plain.scores(QUERY, provider.passages), top_n)
    documents = [result.get("document") for result in answer.results]
    expected = [{"text": provider.passages[index]} if provider.gives_documents else None for index, _ in pairs(answer)]
    assert documents == expected


@by(*PROVIDERS)
async def test_async_calls_rank(provider: Provider, url: str, plain: PlainHTTP) -> None:
    asked_for: Any = await litellm.arerank(**asked(provider, url, return_documents=True))
    as_it_comes: Any = await litellm.arerank(**asked(provider, url))

    assert_ranked(pairs(asked_for), plain.scores(QUERY, provider.passages))
    assert_ranked(pairs(as_it_comes), plain.scores(QUERY, provider.passages))


@by(*PROVIDERS)
def test_documents_are_not_returned_on_request(provider: Provider, url: str, plain: PlainHTTP) -> None:
    answer: Any = litellm.rerank(**asked(provider, url, return_documents=False))

    assert_ranked(pairs(answer), plain.scores(QUERY, provider.passages))
    assert [result.get("document") for result in answer.results] == [None] * len(PASSAGES)


@by(*NAMING)
def test_documents_as_objects_are_ranked(provider: Provider, url: str, plain: PlainHTTP) -> None:
    documents = [{"text": passage} for passage in PASSAGES]

    answer: Any = litellm.rerank(**asked(provider, url, documents=documents))

    assert_ranked(pairs(answer), plain.scores(QUERY, provider.passages))


@by(COHERE_2, COHERE_1)
def test_fields_of_objects_are_ranked(provider: Provider, url: str, plain: PlainHTTP) -> None:
    documents = [{"title": "Sleep", "body": passage} for passage in PASSAGES]

    answer: Any = litellm.rerank(
        **asked(provider, url, documents=documents, rank_fields=["title", "body"], return_documents=False)
    )

    assert_ranked(pairs(answer), plain.scores(QUERY, [f"Sleep\n{passage}" for passage in PASSAGES]))


@by(JINA, INFINITY, VLLM, VLLM_1)
def test_tokens_are_counted(provider: Provider, url: str) -> None:
    answer: Any = litellm.rerank(**asked(provider, url))

    assert answer.meta["billed_units"]["total_tokens"] > 0


def test_a_long_passage_is_an_error_with_huggingface(url: str) -> None:
    with pytest.raises(litellm.exceptions.APIConnectionError, match=r"texts\[1\]"):
        litellm.rerank(**asked(HUGGING_FACE, url, documents=list(PASSAGES)))


@by(*NAMING)
def test_unknown_model_is_named_in_the_error(provider: Provider, url: str) -> None:
    # litellm turns the errors of rerank into this one, whatever the status, unless the provider is named by itself.
    with pytest.raises(litellm.exceptions.APIConnectionError, match="no-such-model"):
        litellm.rerank(**asked(provider, url, model=f"{provider.name}/no-such-model"))


@by(*PROVIDERS)
def test_no_documents_are_refused_and_an_empty_one_is_scored(provider: Provider, url: str) -> None:
    with pytest.raises(litellm.exceptions.APIConnectionError, match=r"(documents|texts)\b"):
        litellm.rerank(**asked(provider, url, documents=[]))
    answer = litellm.rerank(**asked(provider, url, documents=["x", ""]))
    assert sorted(result["index"] for result in answer.results) == [0, 1]


@by(COHERE_2, COHERE_1, VLLM, VLLM_1, HUGGING_FACE)
def test_errors_have_their_class_where_the_provider_is_named_by_itself(provider: Provider, url: str) -> None:
    with pytest.raises(litellm.exceptions.BadRequestError):
        litellm.rerank(**asked(provider, url, model=MODEL, documents=[], custom_llm_provider=provider.name))
