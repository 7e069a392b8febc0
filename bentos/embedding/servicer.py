"""The gRPC methods: translate the request, call the embedder, translate the answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

from bentos.embedding.embedder import EmbedAnswer, Embedder, EmbedJob, Purpose
from bentos.embedding.model import EmbeddingModel, ModelInfo
from bentos.embedding.settings import EmbeddingSettings, ModelSettings
from bentos.models.capability import ModelCapability
from bentos.models.tokens import Side, TokenPiece
from bentos.serving.calls import Context, expires_at, tenant, timings
from bentos.serving.streams import in_order
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import EmbeddingServiceServicer
from torchless.contracts.errors import TorchlessError
from torchless.contracts.grpc_status import to_status

_PURPOSES: dict[int, Purpose] = {pb.INPUT_TYPE_QUERY: "query", pb.INPUT_TYPE_DOCUMENT: "document"}
_SIDES: dict[int, Side | None] = {pb.TRUNCATION_LEFT: "left", pb.TRUNCATION_NONE: None}


class EmbeddingServicer(ModelCapability[ModelSettings, EmbeddingModel, Embedder], EmbeddingServiceServicer):
    """Implements `torchless.embedding.v1.EmbeddingService`.

    Args:
        settings: The bento's settings.
        load: Loads one model; called on a thread, since it takes seconds.
    """

    def __init__(self, settings: EmbeddingSettings, load: Callable[[ModelSettings], EmbeddingModel]) -> None:
        super().__init__(
            "embedding", settings, models=settings.models, load=load, make=lambda models: Embedder(models, settings)
        )
        self._settings = settings

    async def GenerateEmbeddings(  # noqa: N802
        self, request: pb.GenerateEmbeddingsRequest, context: Context
    ) -> pb.GenerateEmbeddingsResponse:
        """One vector per input, or one per token."""
        started = time.monotonic()
        answer = await self.ready.embed(_job(request), flow=tenant(context), expires_at=expires_at(context))
        return _response(answer, started)

    async def StreamEmbeddings(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamEmbeddingsRequest], context: Context
    ) -> AsyncIterator[pb.StreamEmbeddingsResponse]:
        """Answers frames of inputs in their order."""
        flow, deadline = tenant(context), expires_at(context)

        async def answer(frame: pb.StreamEmbeddingsRequest) -> pb.StreamEmbeddingsResponse:
            started = time.monotonic()
            try:
                found = await self.ready.embed(_job(frame.request), flow=flow, expires_at=deadline, wait_for_room=True)
            except TorchlessError as error:
                if not error.kind.policy.callers_fault:
                    raise
                return pb.StreamEmbeddingsResponse(sequence=frame.sequence, error=to_status(error))
            return pb.StreamEmbeddingsResponse(sequence=frame.sequence, response=_response(found, started))

        async for response in in_order(request_iterator, answer, self._settings.stream_window):
            yield response

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:  # noqa: N802
        """Number of tokens of each text, before truncation."""
        info, counts = await self.ready.count_tokens(
            request.texts, request.model, _PURPOSES.get(request.input_type), request.prompt_name
        )
        return pb.CountTokensResponse(model=info.id, token_counts=counts)

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:  # noqa: N802
        """The tokens of each text."""
        return await self.ready.tokenize(
            request.texts,
            request.model,
            request.prompt_name,
            add_special_tokens=request.add_special_tokens if request.HasField("add_special_tokens") else True,
            convert=_tokenize_response,
        )

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Context) -> pb.DetokenizeResponse:  # noqa: N802
        """The text of each sequence of ids."""
        info, texts = await self.ready.detokenize(
            [list(each.ids) for each in request.token_ids],
            request.model,
            skip_special_tokens=request.skip_special_tokens if request.HasField("skip_special_tokens") else True,
        )
        return pb.DetokenizeResponse(model=info.id, texts=texts)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """The models, the default one first."""
        return pb.ListModelsResponse(models=[_model(info) for info in self.ready.models()])


def _job(request: pb.GenerateEmbeddingsRequest) -> EmbedJob:
    return EmbedJob(
        texts=list(request.texts),
        token_ids=[list(each.ids) for each in request.token_ids],
        model=request.model,
        purpose=_PURPOSES.get(request.input_type),
        prompt_name=request.prompt_name,
        normalize=request.normalize if request.HasField("normalize") else True,
        dimensions=request.dimensions,
        truncate=_SIDES.get(request.truncation, "right"),
        per_token=request.granularity == pb.GRANULARITY_TOKEN,
    )


def _response(answer: EmbedAnswer, started: float) -> pb.GenerateEmbeddingsResponse:
    return pb.GenerateEmbeddingsResponse(
        model=answer.info.id,
        revision=answer.info.revision,
        embeddings=matrix.to_message(answer.vectors),
        token_counts=answer.token_counts,
        truncated=answer.truncated,
        timings=timings(
            queue_s=answer.queue_s,
            tokenization_s=answer.tokenization_s,
            inference_s=answer.inference_s,
            started=started,
        ),
    )


def _tokenize_response(info: ModelInfo, texts: Sequence[Sequence[TokenPiece]]) -> pb.TokenizeResponse:
    return pb.TokenizeResponse(
        model=info.id,
        texts=[
            pb.TokenizedText(
                tokens=[pb.Token(id=p.id, text=p.text, special=p.special, start=p.start, stop=p.stop) for p in pieces]
            )
            for pieces in texts
        ],
    )


def _model(info: ModelInfo) -> pb.Model:
    return pb.Model(
        id=info.id,
        revision=info.revision,
        dimensions=info.dimensions,
        max_tokens=info.max_tokens,
        matryoshka_dimensions=info.matryoshka_dimensions,
        prompt_names=sorted(info.prompts),
        device=info.device,
        dtype=info.dtype,
        pooling=info.pooling,
        max_batch_tokens=info.max_batch_tokens,
        created=info.created,
        vocabulary_size=info.vocabulary_size,
    )
