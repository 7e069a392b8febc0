"""The reranking service, typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torchless.clients.base import CapabilityClient, valid_text
from torchless.clients.call import CallContext
from torchless.clients.caller import Caller
from torchless.contracts.errors import ErrorKind, TorchlessError, invalid_input
from torchless.contracts.reranking.v1 import reranking_pb2 as pb
from torchless.contracts.reranking.v1.reranking_pb2_grpc import RerankingServiceStub
from torchless.contracts.types.v1.types_pb2 import Timings

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from torchless.contracts.reranking.v1.reranking_pb2_grpc import RerankingServiceAsyncStub

_Stub: TypeAlias = "RerankingServiceAsyncStub"
SERVICE_NAME = "torchless.reranking.v1.RerankingService"
_MOST_TOKENS = 2**32 - 1


class ScoreForm(IntEnum):
    """What a score is; every form orders the documents of a query alike."""

    AS_MODEL = pb.SCORE_FORM_UNSPECIFIED
    """As the model's authors chose."""
    RAW = pb.SCORE_FORM_RAW
    """Without an activation."""
    UNIT = pb.SCORE_FORM_UNIT
    """In [0, 1]."""


class LongDocuments(IntEnum):
    """What happens to a document that, with its query, is longer than the model reads."""

    AS_CONFIGURED = pb.LONG_DOCUMENTS_UNSPECIFIED
    CUT = pb.LONG_DOCUMENTS_CUT
    CUT_START = pb.LONG_DOCUMENTS_CUT_START
    WINDOWS = pb.LONG_DOCUMENTS_WINDOWS
    REFUSE = pb.LONG_DOCUMENTS_REFUSE


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """How documents are scored; the defaults are the service's."""

    model: str = ""
    """Model id; empty: the service's default model."""
    score_form: ScoreForm = ScoreForm.AS_MODEL
    """What the scores are."""
    max_tokens_per_doc: int = 0
    """Tokens of a document that are read at most; 0: as the model is configured."""
    long_documents: LongDocuments = LongDocuments.AS_CONFIGURED
    """What happens to documents longer than the model reads."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query and what is to be put in order for it."""

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

    def order(self) -> NDArray[np.intp]:
        """Indices of the documents, the best first; of equal scores the one given first."""
        return np.argsort(-self.scores, kind="stable")


@dataclass(frozen=True, slots=True)
class Reranking:
    """What `rerank_batch` answers."""

    queries: list[DocumentScores]
    """One entry a query, in the order of the queries."""
    model: str
    """Id of the model that answered."""
    revision: str
    """Its pinned revision."""
    timings: Timings = field(default_factory=Timings)
    """Where the time went inside the service, in milliseconds."""

    @property
    def total_tokens(self) -> int:
        """Tokens that the model read for all documents of all queries."""
        return sum(sum(each.token_counts) for each in self.queries)


class RerankingClient(CapabilityClient):
    """Calls one reranking service.

        async with RerankingClient("localhost:50052") as client:
            found = await client.rerank("Why does bread rise?", ["Yeast makes gas.", "Bread needs salt."])
            best = found.queries[0].order()[0]

    Every method raises `TorchlessError` and nothing else; its kind says whose fault it was.

    Args:
        settings: How the service is called, or just its address.
        metrics: Where calls and endpoints are shown; None: on Prometheus' default registry.
    """

    capability = "reranking"
    service_name = SERVICE_NAME
    make_stub = RerankingServiceStub
    _caller: Caller[_Stub]

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        options: RerankOptions = RerankOptions(),
        context: CallContext = CallContext(),
    ) -> Reranking:
        """Scores of the documents of one query; `queries` of the answer has one entry."""
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
            options: How.
            context: For whom, and how long they wait.
        """
        request = _request(queries, options)
        response = await self._caller.unary(lambda stub: stub.RerankBatch, request, context)
        return Reranking(
            queries=_scores(response, [len(query.documents) for query in queries]),
            model=response.model,
            revision=response.revision,
            timings=response.timings,
        )

    async def list_models(self, context: CallContext = CallContext()) -> list[pb.Model]:
        """The models served, the default one first; see `Model` in the contract for their fields."""
        response = await self._caller.unary(lambda stub: stub.ListModels, pb.ListModelsRequest(), context)
        return list(response.models)


def _request(queries: Sequence[Query], options: RerankOptions) -> pb.RerankBatchRequest:
    if not 0 <= options.max_tokens_per_doc <= _MOST_TOKENS:
        raise invalid_input("max_tokens_per_doc", f"is a whole number from 0 to {_MOST_TOKENS}")
    return pb.RerankBatchRequest(
        model=valid_text(options.model, "model"),
        queries=[_query(query, index) for index, query in enumerate(queries)],
        score_form=pb.ScoreForm.ValueType(options.score_form),
        max_tokens_per_doc=options.max_tokens_per_doc,
        long_documents=pb.LongDocuments.ValueType(options.long_documents),
    )


def _query(query: Query, index: int) -> pb.RerankQuery:
    field_name = f"queries[{index}]"
    documents = [valid_text(text, f"{field_name}.documents[{i}]") for i, text in enumerate(query.documents)]
    return pb.RerankQuery(query=valid_text(query.text, f"{field_name}.query"), documents=documents)


def _scores(response: pb.RerankBatchResponse, documents: Sequence[int]) -> list[DocumentScores]:
    if [len(entry.scores) for entry in response.queries] != [4 * count for count in documents]:
        raise TorchlessError(ErrorKind.INTERNAL, "the service answered another number of scores than of documents")
    return [
        DocumentScores(
            np.frombuffer(entry.scores, dtype="<f4").astype(np.float32, copy=False), list(entry.token_counts)
        )
        for entry in response.queries
    ]
