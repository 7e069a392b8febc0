"""The reranking service: scores of documents for a query, and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchless.clients.base import CapabilityClient
from torchless.clients.call import CallContext
from torchless.clients.caller import Caller
from torchless.clients.mapping import build, build_at, reader
from torchless.clients.timings import NO_TIMINGS, Timings
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.reranking.v1 import reranking_pb2 as pb
from torchless.contracts.reranking.v1.reranking_pb2_grpc import RerankingServiceStub
from torchless.contracts.types.v1 import types_pb2

if TYPE_CHECKING:
    from torchless.contracts.reranking.v1.reranking_pb2_grpc import RerankingServiceAsyncStub

SERVICE_NAME = "torchless.reranking.v1.RerankingService"


class ScoreForm(IntEnum):
    """The scale of the scores; the order of the documents is the same in each."""

    AS_MODEL = pb.SCORE_FORM_UNSPECIFIED
    """The scale that the model's authors chose."""
    RAW = pb.SCORE_FORM_RAW
    """Without an activation."""
    UNIT = pb.SCORE_FORM_UNIT
    """In [0, 1]."""


class LongDocuments(IntEnum):
    """What happens to a document that is, with its query, longer than the model's maximum length."""

    AS_CONFIGURED = pb.LONG_DOCUMENTS_UNSPECIFIED
    CUT = pb.LONG_DOCUMENTS_CUT
    CUT_START = pb.LONG_DOCUMENTS_CUT_START
    WINDOWS = pb.LONG_DOCUMENTS_WINDOWS
    REFUSE = pb.LONG_DOCUMENTS_REFUSE


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """How to score documents; the defaults are the service's."""

    model: str = ""
    """Model id; empty: the service's default model."""
    score_form: ScoreForm = ScoreForm.AS_MODEL
    """The scale of the scores."""
    max_tokens_per_doc: int = 0
    """The most tokens of a document to read; 0: as the model is configured."""
    long_documents: LongDocuments = LongDocuments.AS_CONFIGURED
    """What happens to documents longer than the model's maximum length."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query and the documents to score for it."""

    text: str
    """The query."""
    documents: Sequence[str]
    """The documents, at least one."""


@dataclass(frozen=True, slots=True)
class DocumentScores:
    """The scores of one query's documents."""

    scores: NDArray[np.float32]
    """Read-only. Shape (documents,), in the order of the documents, all finite."""
    token_counts: list[int]
    """Tokens that the model read for each document, query and special tokens included."""
    truncated: list[int] = field(default_factory=list)
    """Indices of the documents of which the model read only a part, ascending."""
    query_truncated: bool = False
    """Whether the model read only a part of the query, with at least one document."""

    def order(self) -> NDArray[np.intp]:
        """Indices of the documents, best first; equal scores keep the order of the request."""
        return np.argsort(-self.scores, kind="stable")


@dataclass(frozen=True, slots=True)
class Reranking:
    """Scores of queries and their documents."""

    queries: list[DocumentScores]
    """One entry per query, in the order of the queries."""
    model: str
    """Id of the model that answered."""
    revision: str
    """Fingerprint of what decided the scores, as in `RerankingModelInfo`."""
    timings: Timings = NO_TIMINGS
    """Where the time went inside the service."""

    @property
    def total_tokens(self) -> int:
        """Tokens that the model read for all documents of all queries."""
        return sum(sum(query.token_counts) for query in self.queries)

    @property
    def truncated_texts(self) -> int:
        """Number of queries and documents of which the model read only a part."""
        return sum(len(query.truncated) + query.query_truncated for query in self.queries)


class ModelKind(StrEnum):
    """How a model compares a query and a document."""

    UNKNOWN = "unknown"
    """A kind that is newer than this client."""
    CROSS_ENCODER = "cross_encoder"
    """It reads both together (Nogueira and Cho, "Passage re-ranking with BERT", 2019)."""
    LATE_INTERACTION = "late_interaction"
    """It reads each alone and compares their token vectors (Khattab and Zaharia, "ColBERT", 2020)."""


@dataclass(frozen=True, slots=True)
class RerankingModelInfo:
    """A model that the service serves."""

    id: str
    """Id that requests name."""
    revision: str
    """Fingerprint of what decides the scores: weights, tokenizer, prefixes, dtype, maximum length and so on."""
    kind: ModelKind
    """How it compares."""
    max_tokens: int
    """Longest input that the model reads, in tokens, special tokens included: query and document together for a
    cross-encoder, each of them for late interaction."""
    max_tokens_per_doc: int
    """Tokens of a document that are read when a request does not say."""
    long_documents: LongDocuments
    """What happens to long documents when a request does not say."""
    device: str
    """Device that it runs on: `cpu`, `cuda`, `cuda:0` and so on."""
    dtype: str
    """Type of its weights: `float32`, `float16` or `bfloat16`; scores are always float32."""
    max_batch_tokens: int
    """Padded tokens that one batch on the device may hold."""
    created: int
    """When the service loaded it, in seconds since the Unix epoch."""


_read_timings = reader(types_pb2.Timings, Timings)
_read_model = reader(pb.Model, RerankingModelInfo)


class RerankingClient(CapabilityClient):
    """Calls one reranking service.

        async with RerankingClient("localhost:50052") as client:
            found = await client.rerank("Why does bread rise?", ["Yeast makes gas.", "Bread needs salt."])
            best = found.queries[0].order()[0]

    Every method raises only `TorchlessError`; its kind says what went wrong.

    Args:
        settings: How to call the service, or only its address.
        metrics: Where calls and endpoints are counted; None: in Prometheus' default registry.
    """

    capability = "reranking"
    service_name = SERVICE_NAME
    make_stub = RerankingServiceStub
    _caller: Caller[RerankingServiceAsyncStub]

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        options: RerankOptions = RerankOptions(),
        context: CallContext = CallContext(),
    ) -> Reranking:
        """Scores of the documents of one query; `queries` of the result has one entry."""
        return await self.rerank_batch([Query(query, documents)], options, context)

    async def rerank_batch(
        self,
        queries: Sequence[Query],
        options: RerankOptions = RerankOptions(),
        context: CallContext = CallContext(),
    ) -> Reranking:
        """Scores of the documents of each query, in their order.

        Args:
            queries: The queries, each with its own documents.
            options: How to score them.
            context: Tenant, request id, trace and deadline of the call.
        """
        request = _request(queries, options)
        response = await self._caller.unary(lambda stub: stub.RerankBatch, request, context)
        return Reranking(
            queries=_scores(response, [len(query.documents) for query in queries]),
            model=response.model,
            revision=response.revision,
            timings=_read_timings(response.timings),
        )

    async def list_models(self, context: CallContext = CallContext()) -> list[RerankingModelInfo]:
        """The models served, the default one first."""
        response = await self._caller.unary(lambda stub: stub.ListModels, pb.ListModelsRequest(), context)
        return [_read_model(model) for model in response.models]


def _request(queries: Sequence[Query], options: RerankOptions) -> pb.RerankBatchRequest:
    return build(
        pb.RerankBatchRequest,
        model=options.model,
        queries=[
            build_at(("queries", index), pb.RerankQuery, query=query.text, documents=query.documents)
            for index, query in enumerate(queries)
        ],
        score_form=pb.ScoreForm.ValueType(options.score_form),
        max_tokens_per_doc=options.max_tokens_per_doc,
        long_documents=pb.LongDocuments.ValueType(options.long_documents),
    )


def _scores(response: pb.RerankBatchResponse, documents: Sequence[int]) -> list[DocumentScores]:
    if [len(entry.scores) for entry in response.queries] != [4 * count for count in documents]:
        raise TorchlessError(ErrorKind.INTERNAL, "the service returned a different number of scores than of documents")
    return [
        DocumentScores(
            np.frombuffer(entry.scores, dtype="<f4").astype(np.float32, copy=False),
            list(entry.token_counts),
            list(entry.truncated),
            entry.query_truncated,
        )
        for entry in response.queries
    ]
