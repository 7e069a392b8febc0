"""An embedding service that answers at once: prepared bytes over real gRPC, in a process of its own.

`python -m benchmarks.client_layer.instant_service PORT...` listens on each port; each port is an endpoint of one
service.
"""

from __future__ import annotations

import asyncio
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

from torchless.clients.embedding import SERVICE_NAME
from torchless.contracts import matrix
from torchless.contracts.embedding.v1 import embedding_pb2 as pb

_DIMENSIONS = 384
_TOKENS = 19
MODEL = pb.Model(id="prepared", revision="r1", dimensions=_DIMENSIONS, max_tokens=256)
"""The one that is served."""


def vectors(texts: int) -> NDArray[np.float32]:
    """What is answered to so many texts, shape (texts, dimensions): every text has the same vector, of length 1."""
    return np.full((texts, _DIMENSIONS), _DIMENSIONS**-0.5, np.float32)


@lru_cache(maxsize=256)
def prepared(texts: int) -> bytes:
    """The answer to so many texts, as it goes over the wire."""
    response = pb.GenerateEmbeddingsResponse(
        model=MODEL.id,
        revision=MODEL.revision,
        embeddings=matrix.to_message(vectors(texts)),
        token_counts=[_TOKENS] * texts,
    )
    return response.SerializeToString()


async def _generate(request: pb.GenerateEmbeddingsRequest, context: Any) -> bytes:
    return prepared(len(request.texts))


async def _list_models(request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
    return pb.ListModelsResponse(models=[MODEL])


def _handlers() -> grpc.GenericRpcHandler:
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "GenerateEmbeddings": grpc.unary_unary_rpc_method_handler(
            _generate, request_deserializer=pb.GenerateEmbeddingsRequest.FromString
        ),
        "ListModels": grpc.unary_unary_rpc_method_handler(
            _list_models,
            request_deserializer=pb.ListModelsRequest.FromString,
            response_serializer=pb.ListModelsResponse.SerializeToString,
        ),
    }
    return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)


async def serve(ports: Sequence[int]) -> None:
    """Answers until the process is ended."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_handlers(),))
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await health.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
    for port in ports:
        server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve([int(port) for port in sys.argv[1:]]))
