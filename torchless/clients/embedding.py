"""The embedding service, typed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torchless.clients.base import CapabilityClient, valid_text
from torchless.clients.call import CallContext
from torchless.clients.caller import Caller
from torchless.clients.metrics import ClientMetrics
from torchless.clients.request_joining import Joining, JoiningSettings
from torchless.clients.settings import ClientSettings
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from torchless.contracts.errors import TorchlessError, invalid_input
from torchless.contracts.grpc_status import from_status
from torchless.contracts.types.v1.types_pb2 import Timings, TokenIds

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from torchless.contracts.embedding.v1.embedding_pb2_grpc import EmbeddingServiceAsyncStub

_Stub: TypeAlias = "EmbeddingServiceAsyncStub"
SERVICE_NAME = "torchless.embedding.v1.EmbeddingService"


class InputType(IntEnum):
    """What a text is for; picks the model's prompt."""

    UNSPECIFIED = pb.INPUT_TYPE_UNSPECIFIED
    QUERY = pb.INPUT_TYPE_QUERY
    DOCUMENT = pb.INPUT_TYPE_DOCUMENT


class Truncation(IntEnum):
    """What happens to an input longer than the model reads."""

    RIGHT = pb.TRUNCATION_RIGHT
    LEFT = pb.TRUNCATION_LEFT
    NONE = pb.TRUNCATION_NONE


class Granularity(IntEnum):
    """One vector an input, or one a token."""

    TEXT = pb.GRANULARITY_TEXT
    TOKEN = pb.GRANULARITY_TOKEN


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How inputs are embedded; the defaults are the service's."""

    model: str = ""
    """Model id; empty: the service's default model."""
    input_type: InputType = InputType.UNSPECIFIED
    """What the inputs are for. Ignored where `prompt_name` is given."""
    prompt_name: str = ""
    """One of the model's prompts; empty: the one of `input_type`."""
    normalize: bool = True
    """Scale each vector to length 1."""
    dimensions: int = 0
    """Leading dimensions to keep, one that the model supports; 0: all."""
    truncation: Truncation = Truncation.RIGHT
    """What happens to inputs longer than the model reads."""
    granularity: Granularity = Granularity.TEXT
    """One vector an input, or one a token."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What `embed` answers."""

    vectors: NDArray[np.float32]
    """Read-only. Shape (inputs, dimensions), or (sum of token_counts, dimensions) for token granularity."""
    token_counts: list[int]
    """Tokens that the model read for each input, special tokens and prompt included."""
    model: str
    """Id of the model that answered."""
    revision: str
    """Its pinned revision."""
    timings: Timings = field(default_factory=Timings)
    """Where the time went inside the service, in milliseconds."""

    def per_input(self) -> list[NDArray[np.float32]]:
        """For token granularity: one array an input, shape (tokens, dimensions)."""
        ends = np.cumsum(self.token_counts)[:-1]
        return np.split(self.vectors, ends)


class EmbeddingClient(CapabilityClient):
    """Calls one embedding service.

        async with EmbeddingClient("localhost:50051") as client:
            answer = await client.embed(["a text"])

    Every method raises `TorchlessError` and nothing else; its kind says whose fault it was.

    Args:
        settings: How the service is called, or just its address.
        metrics: Where calls and endpoints are shown; None: on Prometheus' default registry.
        joining: Whether and how concurrent small requests share calls. Of those that do, the service sees the id and
            the trace of the first.
    """

    capability = "embedding"
    service_name = SERVICE_NAME
    make_stub = EmbeddingServiceStub
    _caller: Caller[_Stub]

    def __init__(
        self,
        settings: ClientSettings | str,
        metrics: ClientMetrics | None = None,
        joining: JoiningSettings = JoiningSettings(enabled=False),
    ) -> None:
        super().__init__(settings, metrics)
        self._joining: Joining[EmbedOptions, Embeddings] = Joining(self._embed, _part, self._pool.takers, joining)

    def join(self, joining: JoiningSettings) -> None:
        """Joins small requests as these settings have it, from now on."""
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
            options: How.
            context: For whom, and how long they wait.
        """
        with self._caller.admitted():
            texts = _joinable(inputs, options)
            if self._joining.takes(texts):
                # A text that cannot be sent must not keep those from being sent that it is joined with.
                return await self._joining.answer(_texts(texts), options, context, self._caller.deadline_of(context))
            return await self._embed(inputs, options, context)

    async def _embed(
        self, inputs: Sequence[str] | Sequence[Sequence[int]], options: EmbedOptions, context: CallContext
    ) -> Embeddings:
        request = _request(inputs, options)
        return _embeddings(
            await self._caller.unary(lambda stub: stub.GenerateEmbeddings, request, context, is_admitted=True)
        )

    async def embed_stream(
        self,
        frames: AsyncIterable[Sequence[str]],
        options: EmbedOptions = EmbedOptions(),
        context: CallContext = CallContext(),
    ) -> AsyncGenerator[Embeddings | TorchlessError, None]:
        """Vectors of many frames of texts, one answer a frame, in the order of the frames.

        The next frame is asked for only when the service has room for it. A frame that the service refuses yields the
        error in its place and the stream goes on. When an endpoint is lost or leaves, the stream goes on at another one
        with the first frame that was not answered; a fault of the service raises. There is no deadline unless `context`
        has one: a bulk run takes what it takes, as long as answers come (`retry.stream_patience_s`). What `frames`
        raises comes after the answers to the frames before.
        """

        async def requests() -> AsyncIterator[pb.StreamEmbeddingsRequest]:
            sequence = 0
            async for frame in frames:
                yield pb.StreamEmbeddingsRequest(sequence=sequence, request=_request(frame, options))
                sequence += 1

        answers = self._caller.resuming(lambda stub: stub.StreamEmbeddings, requests(), context)
        async with aclosing(answers):
            async for answer in answers:
                if answer.WhichOneof("result") == "error":
                    yield from_status(answer.error)
                else:
                    yield _embeddings(answer.response)

    async def count_tokens(
        self, texts: Sequence[str], options: EmbedOptions = EmbedOptions(), context: CallContext = CallContext()
    ) -> list[int]:
        """Tokens of each text before any truncation, prompt and special tokens included."""
        request = pb.CountTokensRequest(
            model=valid_text(options.model, "model"),
            texts=_texts(texts),
            input_type=pb.InputType.ValueType(options.input_type),
            prompt_name=valid_text(options.prompt_name, "prompt_name"),
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
    ) -> list[list[pb.Token]]:
        """The tokens of each text; see `Token` in the contract for their fields."""
        request = pb.TokenizeRequest(
            model=valid_text(model, "model"),
            texts=_texts(texts),
            add_special_tokens=add_special_tokens,
            prompt_name=valid_text(prompt_name, "prompt_name"),
        )
        response = await self._caller.unary(lambda stub: stub.Tokenize, request, context)
        return [list(text.tokens) for text in response.texts]

    async def detokenize(
        self,
        token_ids: Sequence[Sequence[int]],
        *,
        model: str = "",
        skip_special_tokens: bool = True,
        context: CallContext = CallContext(),
    ) -> list[str]:
        """The text of each sequence of ids."""
        request = pb.DetokenizeRequest(
            model=valid_text(model, "model"),
            token_ids=_token_ids(token_ids),
            skip_special_tokens=skip_special_tokens,
        )
        response = await self._caller.unary(lambda stub: stub.Detokenize, request, context)
        return list(response.texts)

    async def list_models(self, context: CallContext = CallContext()) -> list[pb.Model]:
        """The models served, the default one first; see `Model` in the contract for their fields."""
        response = await self._caller.unary(lambda stub: stub.ListModels, pb.ListModelsRequest(), context)
        return list(response.models)


def _request(inputs: Sequence[str] | Sequence[Sequence[int]], options: EmbedOptions) -> pb.GenerateEmbeddingsRequest:
    if not 0 <= options.dimensions < 2**32:
        raise invalid_input("dimensions", "is a whole number from 0 to 4294967295")
    request = pb.GenerateEmbeddingsRequest(
        model=valid_text(options.model, "model"),
        input_type=pb.InputType.ValueType(options.input_type),
        prompt_name=valid_text(options.prompt_name, "prompt_name"),
        normalize=options.normalize,
        dimensions=options.dimensions,
        truncation=pb.Truncation.ValueType(options.truncation),
        granularity=pb.Granularity.ValueType(options.granularity),
    )
    if inputs and isinstance(inputs[0], str):
        request.texts.extend(_texts(inputs))  # type: ignore[arg-type]
    else:
        request.token_ids.extend(_token_ids(inputs))  # type: ignore[arg-type]
    return request


def _texts(texts: Sequence[str]) -> Sequence[str]:
    return [valid_text(text, f"texts[{index}]") for index, text in enumerate(texts)]


def _token_ids(sequences: Sequence[Sequence[int]]) -> list[TokenIds]:
    try:
        return [TokenIds(ids=ids) for ids in sequences]
    except ValueError as error:  # past the range of an unsigned 32-bit number
        raise invalid_input("token_ids", "each id is a whole number from 0 to 4294967295") from error


def _joinable(inputs: Sequence[str] | Sequence[Sequence[int]], options: EmbedOptions) -> Sequence[str]:
    """`inputs`, if they can share a call with others: texts, each with one vector; else none."""
    is_text = bool(inputs) and isinstance(inputs[0], str)
    return inputs if is_text and options.granularity is Granularity.TEXT else []  # type: ignore[return-value]


def _part(whole: Embeddings, start: int, stop: int) -> Embeddings:
    return replace(whole, vectors=whole.vectors[start:stop], token_counts=whole.token_counts[start:stop])


def _embeddings(response: pb.GenerateEmbeddingsResponse) -> Embeddings:
    return Embeddings(
        vectors=matrix.from_message(response.embeddings),
        token_counts=list(response.token_counts),
        model=response.model,
        revision=response.revision,
        timings=response.timings,
    )
