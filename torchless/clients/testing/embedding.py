"""An embedding service without a model: vectors are hashes of their texts, and tokens are words."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from torchless.clients.embedding import SERVICE_NAME, EmbeddingModelInfo
from torchless.clients.testing.service import Context, InProcessService
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import (
    EmbeddingServiceServicer,
    add_EmbeddingServiceServicer_to_server,
)
from torchless.contracts.errors import ResourceType, TorchlessError, input_too_large, invalid_input, not_found
from torchless.contracts.grpc_status import to_status
from torchless.contracts.types.v1 import types_pb2

EMBEDDING_MODEL = EmbeddingModelInfo(
    id="testing/hashes",
    revision="1",
    dimensions=16,
    max_tokens=64,
    matryoshka_dimensions=(8,),
    prompt_names=("query",),
    device="cpu",
    dtype="float32",
    pooling="mean",
    max_batch_tokens=4096,
    created=1_700_000_000,
    vocabulary_size=30_522,
)
"""The model that an `EmbeddingService` serves by default."""
_CLS, _SEP = "[CLS]", "[SEP]"
_SPECIAL = {_CLS: 1, _SEP: 2}


def vector_of(
    text: str, *, dimensions: int = EMBEDDING_MODEL.dimensions, normalize: bool = True
) -> NDArray[np.float32]:
    """The vector of a text, shape (dimensions,), float32; fewer dimensions are its first components."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return vector / np.linalg.norm(vector) if normalize else vector


class EmbeddingService(InProcessService, EmbeddingServiceServicer):
    """Answers every text with `vector_of`. A word is a token, and each text has two special ones.

        async with EmbeddingService() as service, EmbeddingClient(service.address) as client:
            answer = await client.embed(["a text"])
            np.testing.assert_array_equal(answer.vectors[0], vector_of("a text"))

    The prompt named `query` is the text `query: `. The ids of a text's words count
    from 3, and token ids stand for texts of numbers.

    Args:
        model: The model that it says it serves; `EMBEDDING_MODEL` with other `dimensions`, for instance.
        port: Port of 127.0.0.1; 0: a free one.
    """

    service_name = SERVICE_NAME
    add_to_server = staticmethod(add_EmbeddingServiceServicer_to_server)

    def __init__(self, model: EmbeddingModelInfo = EMBEDDING_MODEL, *, port: int = 0) -> None:
        self.model = model
        super().__init__(port=port)

    async def GenerateEmbeddings(  # noqa: N802
        self, request: pb.GenerateEmbeddingsRequest, context: Context
    ) -> pb.GenerateEmbeddingsResponse:
        """Vectors of texts or of token ids."""
        return await self._unary(request, context, self._embed)

    async def StreamEmbeddings(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamEmbeddingsRequest], context: Context
    ) -> AsyncIterator[pb.StreamEmbeddingsResponse]:
        """Vectors of frames, in their order."""
        async with self._call(context):
            async for frame in request_iterator:
                try:
                    await self._receive(frame, context)
                    answer = pb.StreamEmbeddingsResponse(response=self._embed(frame.request))
                except TorchlessError as error:
                    if not error.kind.policy.callers_fault:
                        raise
                    answer = pb.StreamEmbeddingsResponse(error=to_status(error))
                answer.sequence = frame.sequence
                yield answer

    async def CountTokens(  # noqa: N802
        self, request: pb.CountTokensRequest, context: Context
    ) -> pb.CountTokensResponse:
        """Numbers of tokens."""
        return await self._unary(request, context, self._count)

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:  # noqa: N802
        """Tokens of texts."""
        return await self._unary(request, context, self._tokenize)

    async def Detokenize(  # noqa: N802
        self, request: pb.DetokenizeRequest, context: Context
    ) -> pb.DetokenizeResponse:
        """Texts of token ids."""
        return await self._unary(request, context, self._detokenize)

    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """The one model."""
        return await self._unary(request, context, lambda _: pb.ListModelsResponse(models=[self._model]))

    @property
    def _model(self) -> pb.Model:
        return pb.Model(**asdict(self.model))

    def _embed(self, request: pb.GenerateEmbeddingsRequest) -> pb.GenerateEmbeddingsResponse:
        self._check_model(request.model)
        if request.dimensions not in {0, self.model.dimensions, *self.model.matryoshka_dimensions}:
            raise invalid_input("dimensions", "the model does not support this number of dimensions")
        prompt = self._prompt(request.prompt_name)
        texts = [" ".join(map(str, sequence.ids)) for sequence in request.token_ids] or [
            prompt + text for text in request.texts
        ]
        tokens = [_tokens(text) for text in texts]
        if request.truncation == pb.TRUNCATION_NONE:
            self._check_lengths(tokens)
        truncated = [index for index, each in enumerate(tokens) if len(each) > self.model.max_tokens]
        tokens = [each[: self.model.max_tokens] for each in tokens]
        units = chain.from_iterable(tokens) if request.granularity == pb.GRANULARITY_TOKEN else texts
        dimensions = request.dimensions or self.model.dimensions
        vectors = [vector_of(unit, dimensions=dimensions, normalize=request.normalize) for unit in units]
        return pb.GenerateEmbeddingsResponse(
            model=self.model.id,
            revision=self.model.revision,
            timings=types_pb2.Timings(**asdict(self.timings)),
            embeddings=matrix.to_message(np.stack(vectors)),
            token_counts=map(len, tokens),
            truncated=truncated,
        )

    def _count(self, request: pb.CountTokensRequest) -> pb.CountTokensResponse:
        self._check_model(request.model)
        prompt = self._prompt(request.prompt_name)
        counts = [len(_tokens(prompt + text)) for text in request.texts]
        return pb.CountTokensResponse(model=self.model.id, token_counts=counts)

    def _tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeResponse:
        self._check_model(request.model)
        prompt = self._prompt(request.prompt_name)
        texts = [pb.TokenizedText(tokens=self._words(prompt + text)) for text in request.texts]
        if request.add_special_tokens:
            first, last = (pb.Token(id=token_id, text=text, special=True) for text, token_id in _SPECIAL.items())
            texts = [pb.TokenizedText(tokens=[first, *text.tokens, last]) for text in texts]
        return pb.TokenizeResponse(model=self.model.id, texts=texts)

    def _detokenize(self, request: pb.DetokenizeRequest) -> pb.DetokenizeResponse:
        self._check_model(request.model)
        for row, sequence in enumerate(request.token_ids):
            for column, token_id in enumerate(sequence.ids):
                if token_id >= self.model.vocabulary_size:
                    raise invalid_input(("token_ids", row, column), "is not in the model's vocabulary")
        texts = [" ".join(map(str, sequence.ids)) for sequence in request.token_ids]
        return pb.DetokenizeResponse(model=self.model.id, texts=texts)

    def _words(self, text: str) -> list[pb.Token]:
        tokens, start = [], 0
        for token_id, word in enumerate(text.split(), len(_SPECIAL) + 1):
            start = text.index(word, start)
            tokens.append(pb.Token(id=token_id, text=word, start=start, stop=start + len(word)))
            start += len(word)
        return tokens

    def _check_model(self, name: str) -> None:
        if name not in {"", self.model.id}:
            raise not_found(ResourceType.MODEL, name, f"the model {name[:200]!r} is not served")

    def _check_lengths(self, tokens: list[list[str]]) -> None:
        for index, each in enumerate(tokens):
            if len(each) > self.model.max_tokens:
                reason = f"has {len(each)} tokens; the model reads {self.model.max_tokens}"
                raise input_too_large(("texts", index), reason)

    def _prompt(self, name: str) -> str:
        if name and name not in self.model.prompt_names:
            raise invalid_input("prompt_name", "the model has no such prompt")
        return f"{name}: " if name else ""


def _tokens(text: str) -> list[str]:
    return [_CLS, *text.split(), _SEP]
