"""The clients for programs without an event loop: scripts, notebooks, worker threads.

with SyncEmbeddingClient("localhost:50051") as client:
    answer = client.embed(["a text"])
"""

from torchless.clients.sync.embedding import SyncEmbeddingClient
from torchless.clients.sync.gpu import SyncGPUClient
from torchless.clients.sync.reranking import SyncRerankingClient

__all__ = ["SyncEmbeddingClient", "SyncRerankingClient", "SyncGPUClient"]
