"""The in-process reranking service."""

from __future__ import annotations

import pytest

from torchless.clients.reranking import LongDocuments, Query, RerankingClient, RerankOptions, ScoreForm
from torchless.clients.testing import RERANKING_MODEL, RerankingService, score_of
from torchless.contracts.errors import ErrorKind, TorchlessError


async def test_scores_are_shares_of_common_words() -> None:
    async with RerankingService() as service, RerankingClient(service.address) as client:
        answer = await client.rerank_batch([Query("a b", ["b", "c"]), Query("a", ["A"])])
        raw = await client.rerank("a b", ["b", "c"], RerankOptions(score_form=ScoreForm.RAW))
        assert await client.list_models() == [RERANKING_MODEL]
    assert [list(entry.scores) for entry in answer.queries] == [[0.5, 0.0], [1.0]]
    assert answer.queries[0].token_counts == [6, 6]
    assert list(raw.queries[0].scores) == [0.0, -1.0]
    assert score_of("a b", "b") == 0.5


async def test_subclass_may_score_differently() -> None:
    class Lengths(RerankingService):
        def score(self, query: str, document: str) -> float:
            return len(document) / 10

    async with Lengths() as service, RerankingClient(service.address) as client:
        answer = await client.rerank("q", ["aa", "aaaa"])
    assert list(answer.queries[0].order()) == [1, 0]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (RerankOptions(model="other"), ErrorKind.NOT_FOUND),
        (RerankOptions(long_documents=LongDocuments.REFUSE), ErrorKind.INPUT_TOO_LARGE),
    ],
)
async def test_service_refuses_what_the_model_does_not_support(options: RerankOptions, kind: ErrorKind) -> None:
    async with RerankingService() as service, RerankingClient(service.address) as client:
        with pytest.raises(TorchlessError) as caught:
            await client.rerank("q", ["a", "word " * 61], options)
    assert caught.value.kind is kind
