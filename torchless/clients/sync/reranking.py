"""The reranking service, blocking."""

from __future__ import annotations

from collections.abc import Sequence

from torchless.clients.call import CallContext
from torchless.clients.metrics import ClientMetrics
from torchless.clients.reranking import Query, Reranking, RerankingClient, RerankingModelInfo, RerankOptions
from torchless.clients.settings import ClientSettings
from torchless.clients.sync.base import SyncClient


class SyncRerankingClient(SyncClient[RerankingClient]):
    """Calls one reranking service, and waits for it; each method is that of `RerankingClient`.

        with SyncRerankingClient("localhost:50052") as client:
            found = client.rerank("Why does bread rise?", ["Yeast makes gas.", "Bread needs salt."])
            best = found.queries[0].order()[0]

    Every method raises `TorchlessError` and nothing else; its kind says whose fault it was.

    Args:
        settings: How the service is called, or just its address.
        metrics: Where calls and endpoints are shown; None: on Prometheus' default registry.
    """

    def __init__(self, settings: ClientSettings | str, metrics: ClientMetrics | None = None) -> None:
        super().__init__(lambda: RerankingClient(settings, metrics))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        options: RerankOptions = RerankOptions(),
        context: CallContext = CallContext(),
    ) -> Reranking:
        """Scores of the documents of one query; `queries` of the answer has one entry."""
        return self._run(lambda client: client.rerank(query, documents, options, context))

    def rerank_batch(
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
        return self._run(lambda client: client.rerank_batch(queries, options, context))

    def list_models(self, context: CallContext = CallContext()) -> list[RerankingModelInfo]:
        """The models served, the default one first; see `Model` in the contract for their fields."""
        return self._run(lambda client: client.list_models(context))
