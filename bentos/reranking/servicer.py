"""The gRPC methods: translate the request, call the reranker, translate the answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from bentos.models.capability import ModelCapability
from bentos.reranking.model import Kind, LongDocuments, ModelInfo, Query, RerankingModel, ScoreForm
from bentos.reranking.reranker import QueryScores, Reranker, RerankJob
from bentos.reranking.settings import ModelSettings, RerankingSettings
from bentos.serving.calls import Context, expires_at, tenant, timings
from torchless.contracts.reranking.v1 import reranking_pb2 as pb
from torchless.contracts.reranking.v1.reranking_pb2_grpc import RerankingServiceServicer

_FORMS: dict[int, ScoreForm] = {pb.SCORE_FORM_RAW: "raw", pb.SCORE_FORM_UNIT: "unit"}
_LONG_DOCUMENTS: dict[int, LongDocuments] = {
    pb.LONG_DOCUMENTS_CUT: "cut",
    pb.LONG_DOCUMENTS_CUT_START: "cut_start",
    pb.LONG_DOCUMENTS_WINDOWS: "windows",
    pb.LONG_DOCUMENTS_REFUSE: "refuse",
}
_NUMBERS = {name: pb.LongDocuments.ValueType(number) for number, name in _LONG_DOCUMENTS.items()}
_KINDS: dict[Kind, pb.ModelKind.ValueType] = {
    "cross_encoder": pb.MODEL_KIND_CROSS_ENCODER,
    "late_interaction": pb.MODEL_KIND_LATE_INTERACTION,
}


class RerankingServicer(ModelCapability[ModelSettings, RerankingModel, Reranker], RerankingServiceServicer):
    """Implements `torchless.reranking.v1.RerankingService`.

    Args:
        settings: The bento's settings.
        load: Loads one model; called on a thread, since it takes seconds.
    """

    def __init__(self, settings: RerankingSettings, load: Callable[[ModelSettings], RerankingModel]) -> None:
        super().__init__(
            "reranking", settings, models=settings.models, load=load, make=lambda models: Reranker(models, settings)
        )

    async def RerankBatch(self, request: pb.RerankBatchRequest, context: Context) -> pb.RerankBatchResponse:  # noqa: N802
        """One score for each document of each query."""
        started = time.monotonic()
        answer = await self.ready.rerank(_job(request), flow=tenant(context), expires_at=expires_at(context))
        return pb.RerankBatchResponse(
            model=answer.info.id,
            revision=answer.info.revision,
            queries=[_query_scores(each) for each in answer.queries],
            timings=timings(
                queue_s=answer.queue_s,
                tokenization_s=answer.tokenization_s,
                inference_s=answer.inference_s,
                started=started,
            ),
        )

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """The models, the default one first."""
        return pb.ListModelsResponse(models=[_model(info) for info in self.ready.models()])


def _job(request: pb.RerankBatchRequest) -> RerankJob:
    return RerankJob(
        queries=[Query(query.query, list(query.documents)) for query in request.queries],
        model=request.model,
        form=_FORMS.get(request.score_form, "model"),
        max_tokens_per_doc=request.max_tokens_per_doc,
        long_documents=_LONG_DOCUMENTS.get(request.long_documents),
    )


def _query_scores(answer: QueryScores) -> pb.QueryScores:
    return pb.QueryScores(
        scores=answer.scores.astype("<f4", copy=False).tobytes(),
        token_counts=answer.token_counts,
        truncated=answer.truncated,
        query_truncated=answer.query_truncated,
    )


def _model(info: ModelInfo) -> pb.Model:
    return pb.Model(
        id=info.id,
        revision=info.revision,
        kind=_KINDS[info.kind],
        max_tokens=info.max_tokens,
        max_tokens_per_doc=info.max_tokens_per_doc,
        long_documents=_NUMBERS[info.long_documents],
        device=info.device,
        dtype=info.dtype,
        max_batch_tokens=info.max_batch_tokens,
        created=info.created,
    )
