"""Reranking: order, aliases, and errors in the request's field names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.capabilities.request import RequestContext
from gateway.capabilities.reranking import RequestPaths, RerankingUseCase
from gateway.settings import LimitSettings, ModelSettings
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.reranking import DocumentScores, Query, Reranking, RerankingClient, RerankOptions
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.field_path import format_path, parse_path

CONTEXT = RequestContext("", "", Deadline.NEVER)
scores_of_documents = st.lists(st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, -3.5]), min_size=1, max_size=30)


class GivenScores(RerankingClient):
    """A client whose service returns the given scores, in their order."""

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
async def test_documents_are_ranked_best_first_and_ties_keep_their_order(scores: list[float], top_n: int) -> None:
    documents = ["d"] * len(scores)
    ranking = await reranker(GivenScores(scores)).rank(
        "q", documents, RerankOptions(), CONTEXT, field="documents", top_n=top_n
    )
    expected = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: top_n or None]
    assert ranking.order == expected
    assert ranking.scores == [np.float32(scores[index]) for index in expected]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
async def test_scores_that_are_not_finite_are_an_internal_error(broken: float) -> None:
    with pytest.raises(TorchlessError) as raised:
        await reranker(GivenScores([1.0, broken])).rank("q", ["a", "b"], RerankOptions(), CONTEXT, field="documents")
    assert raised.value.kind is ErrorKind.INTERNAL


async def test_ranking_without_a_service_names_the_setting() -> None:
    with pytest.raises(TorchlessError, match=r"reranking\.address") as raised:
        await reranker(None).rank("q", ["a"], RerankOptions(), CONTEXT, field="documents")
    assert raised.value.kind is ErrorKind.UNREACHABLE


async def test_models_are_found_by_reranking_aliases() -> None:
    client = GivenScores([1.0])
    for name, expected in (("short", "long/name"), ("default/not-specified", ""), ("other", "other"), ("", "")):
        options = RerankOptions(model=name, max_tokens_per_doc=7)
        await reranker(client, short="long/name").rank("q", ["a"], options, CONTEXT, field="documents")
        assert client.asked[-1][1] == RerankOptions(model=expected, max_tokens_per_doc=7)


async def test_pairs_become_the_queries_of_one_call() -> None:
    client = GivenScores([0.1, 0.2])
    answer = await reranker(client).score(
        ["q1", "q2"], ["d1", "d2"], RerankOptions(), CONTEXT, fields=("text_1", "text_2")
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
def test_paths_of_the_service_become_paths_of_the_request(of_service: str, of_request: str) -> None:
    paths = RequestPaths(("texts",), lambda _: ("query",), lambda _, index: ("texts", index))
    assert format_path(paths.rename(parse_path(of_service))) == of_request
