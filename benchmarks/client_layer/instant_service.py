"""The services behind the gateway, answering at once: prepared bytes over real gRPC, in a separate process.

`python -m benchmarks.client_layer.instant_service PORT...` listens on each port; each port is an endpoint of one
service.
"""

from __future__ import annotations

import asyncio
import pkgutil
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import grpc
import numpy as np
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from numpy.typing import NDArray

from torchless.cli.bentos import BENTOS
from torchless.clients import embedding, reranking
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2
from torchless.contracts.reranking.v1 import reranking_pb2

_DIMENSIONS = 384
_TOKENS = 19
MODEL = embedding_pb2.Model(id="prepared", revision="r1", dimensions=_DIMENSIONS, max_tokens=256)
"""The embedding model that is served."""
_RERANKER = reranking_pb2.Model(id="prepared", revision="r1", max_tokens=256)


def vectors(texts: int) -> NDArray[np.float32]:
    """The answer to `texts` texts, shape (texts, dimensions): every text has the same vector, of length 1."""
    return np.full((texts, _DIMENSIONS), _DIMENSIONS**-0.5, np.float32)


@lru_cache(maxsize=256)
def prepared(texts: int) -> bytes:
    """The response to `texts` texts, serialized."""
    response = embedding_pb2.GenerateEmbeddingsResponse(
        model=MODEL.id,
        revision=MODEL.revision,
        embeddings=matrix.to_message(vectors(texts)),
        token_counts=[_TOKENS] * texts,
    )
    return response.SerializeToString()


async def _generate(request: embedding_pb2.GenerateEmbeddingsRequest, context: Any) -> bytes:
    return prepared(len(request.texts))


async def _rerank(request: reranking_pb2.RerankBatchRequest, context: Any) -> bytes:
    queries = [
        reranking_pb2.QueryScores(
            scores=np.linspace(0.9, 0.1, len(query.documents), dtype="<f4").tobytes(),
            token_counts=[_TOKENS] * len(query.documents),
        )
        for query in request.queries
    ]
    response = reranking_pb2.RerankBatchResponse(model=_RERANKER.id, revision=_RERANKER.revision, queries=queries)
    return response.SerializeToString()


async def _embedding_models(request: bytes, context: Any) -> bytes:
    return embedding_pb2.ListModelsResponse(models=[MODEL]).SerializeToString()


async def _reranking_models(request: bytes, context: Any) -> bytes:
    return reranking_pb2.ListModelsResponse(models=[_RERANKER]).SerializeToString()


def _handlers() -> list[grpc.GenericRpcHandler]:
    method = grpc.unary_unary_rpc_method_handler
    embed: grpc.RpcMethodHandler[Any, Any] = method(
        _generate, request_deserializer=embedding_pb2.GenerateEmbeddingsRequest.FromString
    )
    rerank: grpc.RpcMethodHandler[Any, Any] = method(
        _rerank, request_deserializer=reranking_pb2.RerankBatchRequest.FromString
    )
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {
        embedding.SERVICE_NAME: {"GenerateEmbeddings": embed, "ListModels": method(_embedding_models)},
        reranking.SERVICE_NAME: {"RerankBatch": rerank, "ListModels": method(_reranking_models)},
    }
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]


async def serve(ports: Sequence[int]) -> None:
    """Answers until the process ends."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(tuple(_handlers()))
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for bento in BENTOS:
        name = pkgutil.resolve_name(bento.client).service_name
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    for port in ports:
        server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve([int(port) for port in sys.argv[1:]]))
