"""The embedding service: vectors, tokens and models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

from torchless.clients.base import CapabilityClient
from torchless.clients.call import CallContext
from torchless.clients.caller import Caller
from torchless.clients.embedding_types import (
    EmbeddingModelInfo,
    Embeddings,
    EmbedOptions,
    Granularity,
    InputType,
    Token,
    Truncation,
)
from torchless.clients.mapping import build, check_number, check_text, reader
from torchless.clients.metrics import ClientMetrics
from torchless.clients.request_joining import Joining, JoiningSettings
from torchless.clients.settings import ClientSettings
from torchless.clients.timings import Timings
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from torchless.contracts.errors import TorchlessError
from torchless.contracts.grpc_status import from_status
from torchless.contracts.types.v1 import types_pb2

if TYPE_CHECKING:
    from torchless.contracts.embedding.v1.embedding_pb2_grpc import EmbeddingServiceAsyncStub

__all__ = [
    "EmbeddingClient",
    "EmbedOptions",
    "InputType",
    "Truncation",
    "Granularity",
    "Embeddings",
    "Token",
    "EmbeddingModelInfo",
    "read_embeddings",
    "SERVICE_NAME",
]

SERVICE_NAME = "torchless.embedding.v1.EmbeddingService"
_LONGEST_NAMES = 1024
"""Longest names of model and prompt together of requests whose common part is remembered, in characters."""


_read_timings = reader(types_pb2.Timings, Timings)
_read_token = reader(pb.Token, Token)
_read_model = reader(pb.Model, EmbeddingModelInfo)


class EmbeddingClient(CapabilityClient):
    """Calls one embedding service.

        async with EmbeddingClient("localhost:50051") as client:
            answer = await client.embed(["a text"])

    Every method raises only `TorchlessError`; its kind says what went wrong.

    Args:
        settings: How to call the service, or only its address.
        metrics: Where calls and endpoints are counted; None: in Prometheus' default registry.
        joining: Whether and how concurrent small requests share calls. The service sees the request ids of all requests
            of a shared call, and the trace of the first.
    """

    capability = "embedding"
    service_name = SERVICE_NAME
    make_stub = EmbeddingServiceStub
    _caller: Caller[EmbeddingServiceAsyncStub]

    def __init__(
        self,
        settings: ClientSettings | str,
        metrics: ClientMetrics | None = None,
        joining: JoiningSettings = JoiningSettings(enabled=False),
    ) -> None:
        super().__init__(settings, metrics)
        self._joining: Joining[EmbedOptions, Embeddings] = Joining(
            self._embed, _part, self._pool.available_endpoints, joining
        )

    def join(self, joining: JoiningSettings) -> None:
        """Joins small requests by these settings from now on."""
        self._joining.settings = joining

    async def close(self) -> None:
        """Closes the channels; calls in flight end with UNREACHABLE."""
        await self._joining.close()
        await super().close()

    async def embed(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        options: EmbedOptions = EmbedOptions(),
        context: CallContext = CallContext(),
    ) -> Embeddings:
        """Vectors of `inputs`, in their order.

        Args:
            inputs: Texts, or token ids of the model's own vocabulary, without special tokens.
            options: How to embed them.
            context: Tenant, request id, trace and deadline of the call.
        """
        with self._caller.admitted():
            texts = _joinable(inputs, options)
            if self._joining.takes(texts):
                # A text that cannot be sent must fail here, not the requests that it would be joined with.
                _check_texts(texts)
                return await self._joining.answer(texts, options, context, self._caller.deadline_of(context))
            return await self._embed(inputs, options, context)

    async def _embed(
        self, inputs: Sequence[str] | Sequence[Sequence[int]], options: EmbedOptions, context: CallContext
    ) -> Embeddings:
        request = _request(inputs, options)
        return read_embeddings(
            await self._caller.unary(lambda stub: stub.GenerateEmbeddings, request, context, is_admitted=True)
        )

    async def embed_stream(
        self,
        frames: AsyncIterable[Sequence[str]],
        options: EmbedOptions = EmbedOptions(),
        context: CallContext = CallContext(),
    ) -> AsyncGenerator[Embeddings | TorchlessError, None]:
        """Vectors of many frames of texts, one answer per frame, in the order of the frames.

        The next frame is read only when the service can take it. For a frame that the service refuses, the stream
        yields the error and goes on. When an endpoint is lost or shuts down, the stream goes on at another
        endpoint with the first unanswered frame; a failure of the service raises. An error that reading `frames` raises
        comes after the answers to the frames before it. There is no deadline unless `context` has one, as long as
        answers keep coming (`retry.stream_idle_timeout_s`).

        Args:
            frames: Frames of texts.
            options: How to embed them.
            context: Tenant, request id, trace and deadline of the call.
        """

        async def requests() -> AsyncIterator[pb.StreamEmbeddingsRequest]:
            sequence = 0
            async for frame in frames:
                yield pb.StreamEmbeddingsRequest(sequence=sequence, request=_request(frame, options))
                sequence += 1

        answers = self._caller.resumable_stream(lambda stub: stub.StreamEmbeddings, requests(), context)
        async with aclosing(answers):
            async for answer in answers:
                if answer.WhichOneof("result") == "error":
                    yield from_status(answer.error)
                else:
                    yield read_embeddings(answer.response)

    async def count_tokens(
        self, texts: Sequence[str], options: EmbedOptions = EmbedOptions(), context: CallContext = CallContext()
    ) -> list[int]:
        """The number of tokens of each text before any truncation, prompt and special tokens included."""
        request = build(
            pb.CountTokensRequest,
            model=options.model,
            texts=texts,
            input_type=pb.InputType.ValueType(options.input_type),
            prompt_name=options.prompt_name,
        )
        response = await self._caller.unary(lambda stub: stub.CountTokens, request, context)
        return list(response.token_counts)

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        add_special_tokens: bool = True,
        prompt_name: str = "",
        context: CallContext = CallContext(),
    ) -> list[list[Token]]:
        """The tokens of each text."""
        request = build(
            pb.TokenizeRequest,
            model=model,
            texts=texts,
            add_special_tokens=add_special_tokens,
            prompt_name=prompt_name,
        )
        response = await self._caller.unary(lambda stub: stub.Tokenize, request, context)
        # In a thread: the conversion of a large response would hold up the event loop.
        return await asyncio.to_thread(_read_tokens, response)

    async def detokenize(
        self,
        token_ids: Sequence[Sequence[int]],
        *,
        model: str = "",
        skip_special_tokens: bool = True,
        context: CallContext = CallContext(),
    ) -> list[str]:
        """The text of each sequence of token ids."""
        request = build(
            pb.DetokenizeRequest,
            model=model,
            token_ids=_token_ids(token_ids),
            skip_special_tokens=skip_special_tokens,
        )
        response = await self._caller.unary(lambda stub: stub.Detokenize, request, context)
        return list(response.texts)

    async def list_models(self, context: CallContext = CallContext()) -> list[EmbeddingModelInfo]:
        """The models served, the default one first."""
        response = await self._caller.unary(lambda stub: stub.ListModels, pb.ListModelsRequest(), context)
        return [_read_model(model) for model in response.models]


def _request(inputs: Sequence[str] | Sequence[Sequence[int]], options: EmbedOptions) -> pb.GenerateEmbeddingsRequest:
    request = pb.GenerateEmbeddingsRequest()
    names = len(options.model) + len(options.prompt_name)
    # What callers send must not stay in memory, however long it is.
    request.CopyFrom(_remembered_request(options) if names <= _LONGEST_NAMES else _request_without_inputs(options))
    if inputs and isinstance(inputs[0], str):
        try:
            request.texts.extend(inputs)  # type: ignore[arg-type]
        except ValueError:
            _check_texts(inputs)  # type: ignore[arg-type]
            raise
    else:
        request.token_ids.extend(_token_ids(inputs))  # type: ignore[arg-type]
    return request


def _request_without_inputs(options: EmbedOptions) -> pb.GenerateEmbeddingsRequest:
    """The common part of requests with the same options."""
    return build(
        pb.GenerateEmbeddingsRequest,
        model=options.model,
        input_type=pb.InputType.ValueType(options.input_type),
        prompt_name=options.prompt_name,
        normalize=options.normalize,
        dimensions=options.dimensions,
        truncation=pb.Truncation.ValueType(options.truncation),
        granularity=pb.Granularity.ValueType(options.granularity),
    )


_remembered_request = lru_cache(maxsize=64)(_request_without_inputs)
"""Makes the common part once, and gives it again: it is copied for each request."""


def _check_texts(texts: Sequence[str]) -> None:
    for index, text in enumerate(texts):
        check_text(("texts", index), text)


def _token_ids(sequences: Sequence[Sequence[int]]) -> list[types_pb2.TokenIds]:
    try:
        return [types_pb2.TokenIds(ids=ids) for ids in sequences]
    except ValueError:
        for row, ids in enumerate(sequences):
            for column, token_id in enumerate(ids):
                check_number(("token_ids", row, column), token_id, FieldDescriptor.CPPTYPE_UINT32)
        raise


def _joinable(inputs: Sequence[str] | Sequence[Sequence[int]], options: EmbedOptions) -> Sequence[str]:
    """`inputs`, if they can share a call with others: texts, each with one vector; else none."""
    is_text = bool(inputs) and isinstance(inputs[0], str)
    return inputs if is_text and options.granularity is Granularity.TEXT else []  # type: ignore[return-value]


def _read_tokens(response: pb.TokenizeResponse) -> list[list[Token]]:
    return [[_read_token(token) for token in text.tokens] for text in response.texts]


def _part(whole: Embeddings, start: int, stop: int) -> Embeddings:
    truncated = [index - start for index in whole.truncated if start <= index < stop]
    counts = whole.token_counts[start:stop]
    return replace(whole, vectors=whole.vectors[start:stop], token_counts=counts, truncated=truncated)


def read_embeddings(response: pb.GenerateEmbeddingsResponse) -> Embeddings:
    """The embeddings of a response."""
    return Embeddings(
        vectors=matrix.from_message(response.embeddings),
        token_counts=list(response.token_counts),
        model=response.model,
        revision=response.revision,
        timings=_read_timings(response.timings),
        truncated=list(response.truncated),
    )
