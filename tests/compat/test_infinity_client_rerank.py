"""infinity-client's rerank: https://github.com/michaelfeil/infinity"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

import pytest
from infinity_client import Client
from infinity_client.api.default import rerank
from infinity_client.models import RerankInput, ReRankResult
from infinity_client.types import UNSET

from tests.compat.plain_http import MODEL, PlainHTTP
from tests.compat.ranking import NUMBERS_OF_BEST, PASSAGES, QUERY, assert_ranked


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(base_url=url) as client:
        yield client


def pairs(answer: ReRankResult) -> list[tuple[int, float]]:
    return [(result.index, result.relevance_score) for result in answer.results]


def test_with_no_model_named(client: Client, plain: PlainHTTP) -> None:
    answer = rerank.sync(client=client, body=RerankInput(query=QUERY, documents=list(PASSAGES)))

    assert isinstance(answer, ReRankResult)
    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES))
    assert {result.document for result in answer.results} == {UNSET}
    assert answer.model == MODEL
    assert answer.usage.total_tokens > 0


@pytest.mark.parametrize("top_n", NUMBERS_OF_BEST)
def test_documents_are_ranked_and_returned(client: Client, plain: PlainHTTP, top_n: int) -> None:
    body = RerankInput(query=QUERY, documents=list(PASSAGES), model=MODEL, return_documents=True, top_n=top_n)

    answer = rerank.sync(client=client, body=body)

    assert isinstance(answer, ReRankResult)
    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES), top_n)
    assert [result.document for result in answer.results] == [PASSAGES[result.index] for result in answer.results]


def test_with_nulls_and_raw_scores(client: Client, plain: PlainHTTP) -> None:
    body = RerankInput(query=QUERY, documents=list(PASSAGES), raw_scores=True, top_n=None)

    answer = rerank.sync(client=client, body=body)

    # Late interaction's raw scores lie between -1 and 1, and those between 0 and 1 are (1 + score) / 2.
    assert isinstance(answer, ReRankResult)
    assert_ranked([(index, (1 + score) / 2) for index, score in pairs(answer)], plain.scores(QUERY, PASSAGES))


async def test_async_client_ranks(url: str, plain: PlainHTTP) -> None:
    async with Client(base_url=url) as client:
        answer = await rerank.asyncio(client=client, body=RerankInput(query=QUERY, documents=list(PASSAGES)))

    assert isinstance(answer, ReRankResult)
    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (RerankInput(query=QUERY, documents=["x"], model="no-such-model"), HTTPStatus.NOT_FOUND),
        (RerankInput(query=QUERY, documents=[]), HTTPStatus.BAD_REQUEST),
        (RerankInput(query="", documents=["x"]), HTTPStatus.BAD_REQUEST),
    ],
    ids=["model", "none", "query"],
)
def test_errors_have_their_status(client: Client, body: RerankInput, status: HTTPStatus) -> None:
    answer = rerank.sync_detailed(client=client, body=body)

    assert answer.status_code == status
    assert answer.parsed is None
