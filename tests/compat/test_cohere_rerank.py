"""cohere's rerank, versions 1 and 2 of the API: https://docs.cohere.com/reference/rerank"""

from __future__ import annotations

from typing import Any

import cohere
import pytest

from tests.compat.plain_http import MODEL, PlainHTTP
from tests.compat.ranking import BEST, NUMBERS_OF_BEST, PASSAGES, QUERY, assert_ranked


@pytest.fixture
def client(url: str) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="unused", base_url=url)


@pytest.fixture
def version_1(url: str) -> Any:
    return cohere.Client(api_key="unused", base_url=url)


def pairs(answer: Any) -> list[tuple[int, float]]:
    return [(result.index, result.relevance_score) for result in answer.results]


@pytest.mark.parametrize("top_n", NUMBERS_OF_BEST)
def test_version_2_ranks_documents(client: cohere.ClientV2, plain: PlainHTTP, top_n: int) -> None:
    answer = client.rerank(model=MODEL, query=QUERY, documents=list(PASSAGES), top_n=top_n)

    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES), top_n)
    assert answer.id
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1


def test_version_2_with_nulls(client: cohere.ClientV2, plain: PlainHTTP) -> None:
    # The client leaves out what is not given, and sends None as null.
    answer = client.rerank(
        model=MODEL, query=QUERY, documents=list(PASSAGES), top_n=None, max_tokens_per_doc=None, priority=None
    )

    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES))


def test_a_document_is_read_up_to_max_tokens_per_doc(client: cohere.ClientV2, plain: PlainHTTP) -> None:
    cut = client.rerank(model=MODEL, query=QUERY, documents=["Bread needs salt. " + PASSAGES[2]], max_tokens_per_doc=4)

    assert cut.results[0].relevance_score == pytest.approx(plain.score(QUERY, "Bread needs salt."), abs=1e-5)


@pytest.mark.parametrize("top_n", NUMBERS_OF_BEST)
def test_version_1_ranks_documents(version_1: Any, plain: PlainHTTP, top_n: int) -> None:
    answer = version_1.rerank(model=MODEL, query=QUERY, documents=list(PASSAGES), top_n=top_n, return_documents=True)

    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES), top_n)
    assert [result.document.text for result in answer.results] == [PASSAGES[result.index] for result in answer.results]


def test_version_1_answers_no_documents_unless_asked(version_1: Any, plain: PlainHTTP) -> None:
    answer = version_1.rerank(model=MODEL, query=QUERY, documents=list(PASSAGES))

    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES))
    assert {result.document for result in answer.results} == {None}


def test_version_1_without_a_model(version_1: Any, plain: PlainHTTP) -> None:
    assert_ranked(pairs(version_1.rerank(query=QUERY, documents=list(PASSAGES))), plain.scores(QUERY, PASSAGES))


def test_version_1_with_objects(version_1: Any, plain: PlainHTTP) -> None:
    documents = [{"text": passage, "place": f"shelf {number}"} for number, passage in enumerate(PASSAGES)]

    answer = version_1.rerank(model=MODEL, query=QUERY, documents=documents, return_documents=True)

    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES))
    assert [result.document.dict() for result in answer.results] == [documents[r.index] for r in answer.results]


def test_version_1_with_rank_fields(version_1: Any, plain: PlainHTTP) -> None:
    documents = [{"title": "Sleep", "body": passage, "text": "Bread."} for passage in PASSAGES]

    answer = version_1.rerank(model=MODEL, query=QUERY, documents=documents, rank_fields=["title", "body"])

    assert_ranked(pairs(answer), plain.scores(QUERY, [f"Sleep\n{passage}" for passage in PASSAGES]))


async def test_async_client_ranks_and_raises(url: str, plain: PlainHTTP) -> None:
    async with cohere.AsyncClientV2(api_key="unused", base_url=url) as client:
        answer = await client.rerank(model=MODEL, query=QUERY, documents=list(PASSAGES))
        with pytest.raises(cohere.NotFoundError):
            await client.rerank(model="no-such-model", query=QUERY, documents=list(PASSAGES))

    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES))


def test_unknown_model_is_not_found(client: cohere.ClientV2, version_1: Any) -> None:
    with pytest.raises(cohere.NotFoundError) as raised:
        client.rerank(model="no-such-model", query=QUERY, documents=list(PASSAGES))
    with pytest.raises(cohere.NotFoundError):
        version_1.rerank(model="no-such-model", query=QUERY, documents=list(PASSAGES))

    assert "no-such-model" in raised.value.body["message"]


def test_an_empty_document_is_scored(client: cohere.ClientV2, plain: PlainHTTP) -> None:
    answer = client.rerank(model=MODEL, query=QUERY, documents=[PASSAGES[BEST], ""])

    scores = plain.scores(QUERY, (PASSAGES[BEST], ""))
    assert pairs(answer) == [(0, pytest.approx(scores[0])), (1, pytest.approx(scores[1]))]


def test_no_documents_are_refused(client: cohere.ClientV2, version_1: Any) -> None:
    with pytest.raises(cohere.BadRequestError) as raised:
        client.rerank(model=MODEL, query=QUERY, documents=[])
    with pytest.raises(cohere.BadRequestError):
        version_1.rerank(model=MODEL, query=QUERY, documents=[])

    assert raised.value.body["message"].startswith("documents")


def test_empty_query_is_refused(client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.BadRequestError) as raised:
        client.rerank(model=MODEL, query="", documents=list(PASSAGES))

    assert raised.value.body["message"].startswith("query")
