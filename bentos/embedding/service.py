"""The service that `bentoml serve-grpc bentos.embedding.service:svc` serves."""

from __future__ import annotations

import os

from bentos.embedding.model import EmbeddingModel
from bentos.embedding.servicer import EmbeddingServicer
from bentos.embedding.settings import EmbeddingSettings, ModelSettings
from bentos.serving.capability import Mount
from bentos.serving.service import build_service
from torchless.contracts.embedding.v1.embedding_pb2_grpc import add_EmbeddingServiceServicer_to_server

settings = EmbeddingSettings.load()


def load(own: ModelSettings) -> EmbeddingModel:
    """Loads one model with torch, imported only here: BentoML's supervisor imports this module too and needs none."""
    # Threads of a pass sleep while they wait for one another. Spinning, the default, loses most of a core's time as
    # soon as anything else wants it, be it only our own event loop. OpenMP reads this when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from bentos.embedding import torch_model

    torch_model.use_cpu_threads(settings.cpu_threads)
    return torch_model.load(own)


svc = build_service(
    "torchless-embedding",
    Mount(
        full_name="torchless.embedding.v1.EmbeddingService",
        make=lambda: EmbeddingServicer(settings, load),
        add_to_server=add_EmbeddingServiceServicer_to_server,
    ),
    settings,
)
