"""A small reranking service over real gRPC: deterministic scores with ties, and what tests see and provoke."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.integration.gateway.loop_thread import LoopThread
from tests.integration.gateway.stand_in import Calls, StandIn
from torchless.clients.reranking import SERVICE_NAME
from torchless.contracts.errors import ResourceType, input_too_large, not_found
from torchless.contracts.reranking.v1 import reranking_pb2 as pb
from torchless.contracts.reranking.v1.reranking_pb2_grpc import (
    RerankingServiceServicer,
    add_RerankingServiceServicer_to_server,
)
from torchless.contracts.types.v1.types_pb2 import Timings

MODEL = pb.Model(
    id="tests/words",
    revision="1",
    kind=pb.MODEL_KIND_CROSS_ENCODER,
    max_tokens=64,
    max_tokens_per_doc=60,
    long_documents=pb.LONG_DOCUMENTS_CUT,
    device="cpu",
    dtype="float32",
    max_batch_tokens=4096,
    created=1_700_000_001,
)


def score_of(query: str, document: str) -> np.float32:
    """The share of the query's words that the document holds, float32."""
    words = set(query.lower().split())
    return np.float32(len(words & set(document.lower().split())) / max(1, len(words)))


def tokens_of(query: str, document: str) -> int:
    """A token a word, and three special ones."""
    return min(MODEL.max_tokens, len(query.split()) + len(document.split()) + 3)


class WordsServicer(Calls, RerankingServiceServicer):
    """Answers with `score_of`, or twice that less one where raw scores are asked for.

    Set `broken_score` to have it in place of every score.
    """

    def reset(self) -> None:
        super().reset()
        self.broken_score: float | None = None

    async def RerankBatch(self, request: pb.RerankBatchRequest, context: Any) -> Any:  # noqa: N802
        async with self._call(request, context):
            if request.model not in {"", MODEL.id}:
                raise not_found(ResourceType.MODEL, request.model, f"the model {request.model!r} is not served")
            timings = Timings(queue_ms=1.4, tokenization_ms=2.0, inference_ms=3.6, total_ms=7.0)
            queries = [self._scored(request, index) for index in range(len(request.queries))]
            return pb.RerankBatchResponse(model=MODEL.id, revision=MODEL.revision, queries=queries, timings=timings)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> Any:  # noqa: N802
        async with self._call(request, context):
            return pb.ListModelsResponse(models=[MODEL])

    def _scored(self, request: pb.RerankBatchRequest, index: int) -> pb.QueryScores:
        query, documents = request.queries[index].query, request.queries[index].documents
        if request.long_documents == pb.LONG_DOCUMENTS_REFUSE:
            for place, document in enumerate(documents):
                if len(document.split()) > MODEL.max_tokens_per_doc:
                    raise input_too_large(
                        f"queries[{index}].documents[{place}]", "has more tokens than the model reads"
                    )
        scores = np.array([score_of(query, document) for document in documents], dtype="<f4")
        if request.score_form == pb.SCORE_FORM_RAW:
            scores = scores * np.float32(2) - np.float32(1)
        if self.broken_score is not None:
            scores[:] = self.broken_score
        counts = [tokens_of(query, document) for document in documents]
        return pb.QueryScores(scores=scores.tobytes(), token_counts=counts)


class RerankingServer(StandIn[WordsServicer]):
    """The servicer on a port of its own."""

    def __init__(self, loop: LoopThread) -> None:
        super().__init__(loop, WordsServicer(), add_RerankingServiceServicer_to_server, SERVICE_NAME)
