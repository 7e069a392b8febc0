"""The service that `bentoml serve-grpc bentos.embedding.service:svc` serves."""

from __future__ import annotations

from bentos.embedding.call_facts import describe
from bentos.embedding.model import EmbeddingModel
from bentos.embedding.servicer import EmbeddingServicer
from bentos.embedding.settings import EmbeddingSettings, ModelSettings
from bentos.models.cpu import prepare_cpu
from bentos.serving.capability import Mount
from bentos.serving.service import build_service
from torchless.contracts.embedding.v1.embedding_pb2_grpc import add_EmbeddingServiceServicer_to_server

settings = EmbeddingSettings.load()


def load(own: ModelSettings) -> EmbeddingModel:
    """Loads one model. Imports torch only here, because BentoML's supervisor imports this module and needs no torch."""
    prepare_cpu(settings)
    from bentos.embedding import torch_model

    return torch_model.load(own)


svc = build_service(
    "torchless-embedding",
    Mount(
        full_name="torchless.embedding.v1.EmbeddingService",
        make=lambda: EmbeddingServicer(settings, load),
        add_to_server=add_EmbeddingServiceServicer_to_server,
        describe=describe,
    ),
    settings,
)
