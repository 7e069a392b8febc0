"""A reranking service without a model: scores are shares of common words."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from torchless.clients.reranking import SERVICE_NAME, LongDocuments, ModelKind, RerankingModelInfo
from torchless.clients.testing.service import Context, InProcessService
from torchless.contracts.errors import ResourceType, input_too_large, not_found
from torchless.contracts.reranking.v1 import reranking_pb2 as pb
from torchless.contracts.reranking.v1.reranking_pb2_grpc import (
    RerankingServiceServicer,
    add_RerankingServiceServicer_to_server,
)
from torchless.contracts.types.v1 import types_pb2

RERANKING_MODEL = RerankingModelInfo(
    id="testing/words",
    revision="1",
    kind=ModelKind.CROSS_ENCODER,
    max_tokens=64,
    max_tokens_per_doc=60,
    long_documents=LongDocuments.CUT,
    device="cpu",
    dtype="float32",
    max_batch_tokens=4096,
    created=1_700_000_001,
)
"""The model that a `RerankingService` serves by default."""


def score_of(query: str, document: str) -> np.float32:
    """The share of the query's words that the document contains, from 0 to 1."""
    words = set(query.lower().split())
    return np.float32(len(words & set(document.lower().split())) / max(1, len(words)))


class RerankingService(InProcessService, RerankingServiceServicer):
    """Answers every pair with `score_of`; raw scores are `2 * score - 1`.

    A word is a token, and each pair has three special ones.

        async with RerankingService() as service, RerankingClient(service.address) as client:
            answer = await client.rerank("swifts sleep", ["bread", "swifts sleep here"])
            assert list(answer.queries[0].order()) == [1, 0]

    Args:
        model: The model that it says it serves.
        port: Port of 127.0.0.1; 0: a free one.
    """

    service_name = SERVICE_NAME
    add_to_server = staticmethod(add_RerankingServiceServicer_to_server)

    def __init__(self, model: RerankingModelInfo = RERANKING_MODEL, *, port: int = 0) -> None:
        self.model = model
        super().__init__(port=port)

    def score(self, query: str, document: str) -> float:
        """The score of a document, from 0 to 1; override it for other scores."""
        return float(score_of(query, document))

    async def RerankBatch(self, request: pb.RerankBatchRequest, context: Context) -> pb.RerankBatchResponse:  # noqa: N802
        """Scores of the documents of each query."""
        return await self._unary(request, context, self._rerank)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """The one model."""
        model = pb.Model(**{**asdict(self.model), "kind": f"MODEL_KIND_{self.model.kind.name}"})
        return await self._unary(request, context, lambda _: pb.ListModelsResponse(models=[model]))

    def _rerank(self, request: pb.RerankBatchRequest) -> pb.RerankBatchResponse:
        if request.model not in {"", self.model.id}:
            raise not_found(ResourceType.MODEL, request.model, f"the model {request.model[:200]!r} is not served")
        if request.long_documents == pb.LONG_DOCUMENTS_REFUSE:
            self._check_lengths(request)
        is_raw = request.score_form == pb.SCORE_FORM_RAW
        return pb.RerankBatchResponse(
            model=self.model.id,
            revision=self.model.revision,
            timings=types_pb2.Timings(**asdict(self.timings)),
            queries=[self._scored(query, is_raw) for query in request.queries],
        )

    def _scored(self, query: pb.RerankQuery, is_raw: bool) -> pb.QueryScores:
        scores = np.array([self.score(query.query, document) for document in query.documents], dtype="<f4")
        most = self.model.max_tokens
        lengths = [len(query.query.split()) + len(document.split()) + 3 for document in query.documents]
        return pb.QueryScores(
            scores=(scores * np.float32(2) - np.float32(1) if is_raw else scores).tobytes(),
            token_counts=[min(most, length) for length in lengths],
            truncated=[index for index, length in enumerate(lengths) if length > most],
        )

    def _check_lengths(self, request: pb.RerankBatchRequest) -> None:
        for row, query in enumerate(request.queries):
            for column, document in enumerate(query.documents):
                if len(document.split()) > self.model.max_tokens_per_doc:
                    path = ("queries", row, "documents", column)
                    raise input_too_large(path, "has more tokens than the model reads")
