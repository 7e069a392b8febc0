"""What the messages of the reranking service say for the log."""

from __future__ import annotations

from typing import Any

from bentos.serving.call_log import CallFacts
from torchless.contracts.reranking.v1 import reranking_pb2 as pb


def describe(facts: CallFacts, message: Any) -> None:
    """Adds what a request or a response says; of queries and documents, only their number."""
    if isinstance(message, pb.RerankBatchRequest):
        facts.model = message.model
        facts.items = sum(len(query.documents) for query in message.queries)
    elif isinstance(message, pb.RerankBatchResponse):
        facts.model = message.model
        facts.tokens = sum(sum(query.token_counts) for query in message.queries)
        facts.add_times(message.timings)
