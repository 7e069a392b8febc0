"""Putting documents in order: sorting, and the names of a request's fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.capabilities.reranking import Names, RerankingUseCase
from gateway.settings import LimitSettings, ModelSettings
from torchless.clients.call import CallContext
from torchless.clients.reranking import DocumentScores, Query, Reranking, RerankingClient, RerankOptions
from torchless.contracts.errors import ErrorKind, TorchlessError

scores_of_documents = st.lists(st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, -3.5]), min_size=1, max_size=30)


class GivenScores(RerankingClient):
    """A client whose service answers the scores that it is made with, in their order."""

    def __init__(self, scores: Sequence[float]) -> None:
        self._scores = np.array(scores, dtype=np.float32)
        self.asked: list[tuple[Sequence[Query], RerankOptions]] = []

    async def rerank_batch(
        self,
        queries: Sequence[Query],
        options: RerankOptions = RerankOptions(),
        context: CallContext = CallContext(),
    ) -> Reranking:
        self.asked.append((queries, options))
        ends = np.cumsum([len(query.documents) for query in queries])
        parts = np.split(self._scores, ends[:-1])
        return Reranking([DocumentScores(part, [1] * len(part)) for part in parts], "m", "1")


def reranker(client: RerankingClient | None, **aliases: str) -> RerankingUseCase:
    return RerankingUseCase(client, LimitSettings(documents=30), ModelSettings(rerank_aliases=aliases))


@given(scores_of_documents, st.integers(0, 40))
async def test_the_best_first_and_ties_as_they_came(scores: list[float], top_n: int) -> None:
    documents = ["d"] * len(scores)
    ranking = await reranker(GivenScores(scores)).rank(
        "q", documents, RerankOptions(), CallContext(), field="documents", top_n=top_n
    )
    expected = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: top_n or None]
    assert ranking.order == expected
    assert ranking.scores == [np.float32(scores[index]) for index in expected]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
async def test_no_order_of_what_is_no_number(broken: float) -> None:
    with pytest.raises(TorchlessError) as raised:
        await reranker(GivenScores([1.0, broken])).rank(
            "q", ["a", "b"], RerankOptions(), CallContext(), field="documents"
        )
    assert raised.value.kind is ErrorKind.INTERNAL


async def test_without_a_service() -> None:
    with pytest.raises(TorchlessError, match=r"reranking\.address") as raised:
        await reranker(None).rank("q", ["a"], RerankOptions(), CallContext(), field="documents")
    assert raised.value.kind is ErrorKind.UNREACHABLE


async def test_aliases_are_those_of_reranking() -> None:
    client = GivenScores([1.0])
    for name, expected in (("short", "long/name"), ("default/not-specified", ""), ("other", "other"), ("", "")):
        options = RerankOptions(model=name, max_tokens_per_doc=7)
        await reranker(client, short="long/name").rank("q", ["a"], options, CallContext(), field="documents")
        assert client.asked[-1][1] == RerankOptions(model=expected, max_tokens_per_doc=7)


async def test_pairs_become_queries_of_one_call() -> None:
    client = GivenScores([0.1, 0.2])
    answer = await reranker(client).score(
        ["q1", "q2"], ["d1", "d2"], RerankOptions(), CallContext(), fields=("text_1", "text_2")
    )
    ((queries, _),) = client.asked
    assert queries == [Query("q1", ["d1"]), Query("q2", ["d2"])]
    assert [scores.scores.tolist() for scores in answer.queries] == [[np.float32(0.1)], [np.float32(0.2)]]


@pytest.mark.parametrize(
    ("of_service", "of_request"),
    [
        ("queries[0].query", "query"),
        ("queries[0].documents[3]", "texts[3]"),
        ("queries[0].documents[3].more", "texts[3].more"),
        ("queries[0].documents", "texts"),
        ("queries[0]", "texts"),
        ("queries", "texts"),
        ("model", "model"),
        ("max_tokens_per_doc", "max_tokens_per_doc"),
        ("queries[0].else", "queries[0].else"),
    ],
)
def test_names(of_service: str, of_request: str) -> None:
    names = Names("texts", lambda _: "query", lambda _, index: f"texts[{index}]")
    assert names.of(of_service) == of_request
