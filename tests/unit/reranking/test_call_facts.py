"""What the messages of the reranking service say for the log."""

from __future__ import annotations

from bentos.reranking.call_facts import describe
from bentos.serving.call_log import CallFacts
from torchless.contracts.reranking.v1 import reranking_pb2 as pb
from torchless.contracts.types.v1.types_pb2 import Timings


def test_documents_and_tokens_of_all_queries_are_counted() -> None:
    facts = CallFacts()
    queries = [pb.RerankQuery(query="a", documents=["b", "c"]), pb.RerankQuery(query="d", documents=["e"])]
    describe(facts, pb.RerankBatchRequest(model="asked/for", queries=queries))
    assert (facts.model, facts.items) == ("asked/for", 3)
    scores = [pb.QueryScores(token_counts=[5, 6]), pb.QueryScores(token_counts=[7])]
    times = Timings(queue_ms=1.0, tokenization_ms=2.0, inference_ms=3.0)
    describe(facts, pb.RerankBatchResponse(model="answered", queries=scores, timings=times))
    assert (facts.model, facts.items, facts.tokens) == ("answered", 3, 18)
    assert (facts.queue_ms, facts.tokenization_ms, facts.inference_ms) == (1.0, 2.0, 3.0)


def test_other_messages_say_nothing() -> None:
    facts = CallFacts()
    describe(facts, pb.ListModelsRequest())
    describe(facts, pb.ListModelsResponse(models=[pb.Model(id="a")]))
    assert facts == CallFacts()
