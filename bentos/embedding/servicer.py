"""The contract's methods: translate, call the embedder, translate back."""

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
from torchless.contracts.errors import CALLERS_FAULT, TorchlessError
from torchless.contracts.grpc_status import to_status

_PURPOSES: dict[int, Purpose] = {pb.INPUT_TYPE_QUERY: "query", pb.INPUT_TYPE_DOCUMENT: "document"}
_SIDES: dict[int, Side | None] = {pb.TRUNCATION_LEFT: "left", pb.TRUNCATION_NONE: None}


class EmbeddingServicer(ModelCapability[ModelSettings, EmbeddingModel, Embedder], EmbeddingServiceServicer):
    """`torchless.embedding.v1.EmbeddingService`, and the capability that the serving side starts and stops.

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
        """One vector an input, or one a token."""
        started = time.monotonic()
        answer = await self.ready.embed(_job(request), flow=tenant(context), expires_at=expires_at(context))
        return _response(answer, started)

    async def StreamEmbeddings(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamEmbeddingsRequest], context: Context
    ) -> AsyncIterator[pb.StreamEmbeddingsResponse]:
        """Frames of inputs, answered in their order."""
        flow, deadline = tenant(context), expires_at(context)

        async def answer(frame: pb.StreamEmbeddingsRequest) -> pb.StreamEmbeddingsResponse:
            started = time.monotonic()
            try:
                made = await self.ready.embed(_job(frame.request), flow=flow, expires_at=deadline, wait_for_room=True)
            except TorchlessError as error:
                if error.kind not in CALLERS_FAULT:
                    raise
                return pb.StreamEmbeddingsResponse(sequence=frame.sequence, error=to_status(error))
            return pb.StreamEmbeddingsResponse(sequence=frame.sequence, response=_response(made, started))

        async for each in in_order(request_iterator, answer, self._settings.stream_window):
            yield each

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:  # noqa: N802
        """Tokens of each text before truncation."""
        info, counts = await self.ready.count_tokens(
            request.texts, request.model, _PURPOSES.get(request.input_type), request.prompt_name
        )
        return pb.CountTokensResponse(model=info.id, token_counts=counts)

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:  # noqa: N802
        """The tokens of each text."""
        embedder = self.ready
        model = embedder.pool.find(request.model)
        embedder.check_texts(request.texts)
        embedder.check_size("texts", sum(map(len, request.texts)))
        special = request.add_special_tokens if request.HasField("add_special_tokens") else True
        texts = embedder.prompted(request.texts, request.prompt_name, model.info)

        def answer() -> pb.TokenizeResponse:
            pieces = model.tokenize(texts, special)
            return pb.TokenizeResponse(model=model.info.id, texts=[_tokenized(each) for each in pieces])

        return await embedder.pool.run_in_tokenizer_pool(answer, sum(map(len, texts)))

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Context) -> pb.DetokenizeResponse:  # noqa: N802
        """The text of each sequence of ids."""
        embedder = self.ready
        model = embedder.pool.find(request.model)
        ids = [list(each.ids) for each in request.token_ids]
        embedder.check_size("token_ids", sum(map(len, ids)))
        embedder.check_token_ids(ids, model.info)
        skip = request.skip_special_tokens if request.HasField("skip_special_tokens") else True
        texts = await embedder.pool.run_in_tokenizer_pool(lambda: model.detokenize(ids, skip), sum(map(len, ids)))
        return pb.DetokenizeResponse(model=model.info.id, texts=texts)

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
        timings=timings(
            queue_s=answer.queue_s,
            tokenization_s=answer.tokenization_s,
            inference_s=answer.inference_s,
            started=started,
        ),
    )


def _tokenized(pieces: Sequence[TokenPiece]) -> pb.TokenizedText:
    tokens = [pb.Token(id=p.id, text=p.text, special=p.special, start=p.start, stop=p.stop) for p in pieces]
    return pb.TokenizedText(tokens=tokens)


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
