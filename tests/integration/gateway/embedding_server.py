"""A small embedding service over real gRPC: deterministic vectors, and what tests need to see and to provoke."""

from __future__ import annotations

import hashlib
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from tests.integration.gateway.loop_thread import LoopThread
from tests.integration.gateway.stand_in import Calls, StandIn
from torchless.clients.embedding import SERVICE_NAME
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import (
    EmbeddingServiceServicer,
    add_EmbeddingServiceServicer_to_server,
)
from torchless.contracts.errors import (
    ResourceType,
    input_too_large,
    invalid_input,
    not_found,
)

MODEL = pb.Model(
    id="tests/letters",
    revision="1",
    dimensions=16,
    max_tokens=64,
    matryoshka_dimensions=[8],
    prompt_names=["query"],
    device="cpu",
    dtype="float32",
    pooling="mean",
    max_batch_tokens=4096,
    created=1_700_000_000,
    vocabulary_size=30_522,
)
PROMPTS = {"query": "query: "}


def tokens_of(text: str) -> list[str]:
    """A token a word, between two special tokens."""
    return ["[CLS]", *text.split(), "[SEP]"]


def vector_of(text: str, *, dimensions: int = 16, normalize: bool = True) -> NDArray[np.float32]:
    """The vector of `text`, shape (dimensions,), float32: a function of the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(16).astype(np.float32)[:dimensions]
    return vector / np.linalg.norm(vector) if normalize else vector


class LettersServicer(Calls, EmbeddingServiceServicer):
    """Answers with `vector_of`."""

    async def GenerateEmbeddings(self, request: pb.GenerateEmbeddingsRequest, context: Any) -> Any:  # noqa: N802
        async with self._call(request, context):
            self._check(request)
            prompt = PROMPTS.get(request.prompt_name, "")
            if request.token_ids:
                texts = [" ".join(str(i) for i in one.ids) for one in request.token_ids]
            else:
                texts = [prompt + text for text in request.texts]
            by_token = request.granularity == pb.GRANULARITY_TOKEN
            dimensions = request.dimensions or 16
            counts = [min(len(tokens_of(text)), MODEL.max_tokens) for text in texts]
            parts = [
                part
                for text, count in zip(texts, counts, strict=True)
                for part in (tokens_of(text)[:count] if by_token else [text])
            ]
            vectors = np.stack([vector_of(p, dimensions=dimensions, normalize=request.normalize) for p in parts])
            return pb.GenerateEmbeddingsResponse(
                model=MODEL.id, revision=MODEL.revision, embeddings=matrix.to_message(vectors), token_counts=counts
            )

    async def StreamEmbeddings(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the gateway does not stream")
        yield

    async def CountTokens(self, request: pb.CountTokensRequest, context: Any) -> Any:  # noqa: N802
        async with self._call(request, context):
            return pb.CountTokensResponse(model=MODEL.id, token_counts=[len(tokens_of(t)) for t in request.texts])

    async def Tokenize(self, request: pb.TokenizeRequest, context: Any) -> Any:  # noqa: N802
        async with self._call(request, context):
            if request.prompt_name and request.prompt_name not in PROMPTS:
                raise invalid_input("prompt_name", "the model has no such prompt")
            return pb.TokenizeResponse(model=MODEL.id, texts=[self._tokenized(request, t) for t in request.texts])

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Any) -> Any:  # noqa: N802
        async with self._call(request, context):
            for row, one in enumerate(request.token_ids):
                for column, token_id in enumerate(one.ids):
                    if token_id >= MODEL.vocabulary_size:
                        raise invalid_input(("token_ids", row, column), "is not in the model's vocabulary")
            texts = [" ".join(str(i) for i in one.ids) for one in request.token_ids]
            return pb.DetokenizeResponse(model=MODEL.id, texts=texts)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> Any:  # noqa: N802
        async with self._call(request, context):
            return pb.ListModelsResponse(models=[MODEL])

    @staticmethod
    def _check(request: pb.GenerateEmbeddingsRequest) -> None:
        if request.model not in {"", MODEL.id}:
            raise not_found(ResourceType.MODEL, request.model, f"the model {request.model!r} is not served")
        if request.dimensions not in {0, 8, 16}:
            raise invalid_input("dimensions", "the model supports 16 and 8")
        if request.prompt_name and request.prompt_name not in PROMPTS:
            raise invalid_input("prompt_name", "the model has no such prompt")
        for index, text in enumerate(request.texts):
            if request.truncation == pb.TRUNCATION_NONE and len(tokens_of(text)) > MODEL.max_tokens:
                raise input_too_large(("texts", index), f"has {len(tokens_of(text))} tokens; the model reads 64")

    @staticmethod
    def _tokenized(request: pb.TokenizeRequest, text: str) -> pb.TokenizedText:
        tokens, start = [], 0
        prompted = PROMPTS.get(request.prompt_name, "") + text
        for number, word in enumerate(prompted.split()):
            start = prompted.index(word, start)
            tokens.append(pb.Token(id=number + 3, text=word, start=start, stop=start + len(word)))
        if request.add_special_tokens:
            special = [pb.Token(id=i, text=t, special=True) for i, t in ((1, "[CLS]"), (2, "[SEP]"))]
            tokens = [special[0], *tokens, special[1]]
        return pb.TokenizedText(tokens=tokens)


class EmbeddingServer(StandIn[LettersServicer]):
    """The servicer on a port of its own."""

    def __init__(self, loop: LoopThread) -> None:
        super().__init__(loop, LettersServicer(), add_EmbeddingServiceServicer_to_server, SERVICE_NAME)
