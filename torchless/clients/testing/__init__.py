"""Services in this process, for tests of programs that call Torchless: real gRPC and health, no model and no GPU.

async with EmbeddingService() as service, EmbeddingClient(service.address) as client:
    answer = await client.embed(["a text"])
    assert service.requests[0].message.texts == ["a text"]

with RerankingService() as service, SyncRerankingClient(service.address) as client:
    service.fail_next(TorchlessError(ErrorKind.OVERLOADED, "try later"))

Each service listens on a free port of 127.0.0.1. Its answers depend only on the request, so tests can predict them with
`vector_of` and `score_of`. Set `latency_s`, `error` or `serving`, or call `fail_next` or `stop`, to make it slow,
failing, unhealthy or absent. It needs nothing but the library's own dependencies.
"""

from torchless.clients.testing.embedding import EMBEDDING_MODEL, EmbeddingService, vector_of
from torchless.clients.testing.gpu import GPUService, device
from torchless.clients.testing.reranking import RERANKING_MODEL, RerankingService, score_of
from torchless.clients.testing.service import InProcessService, ReceivedRequest

__all__ = [
    "EmbeddingService",
    "EMBEDDING_MODEL",
    "vector_of",
    "RerankingService",
    "RERANKING_MODEL",
    "score_of",
    "GPUService",
    "device",
    "InProcessService",
    "ReceivedRequest",
]
