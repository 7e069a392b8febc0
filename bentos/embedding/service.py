"""The service that `bentoml serve-grpc bentos.embedding.service:svc` serves."""

from __future__ import annotations

from bentos.embedding.call_facts import describe
from bentos.embedding.model import EmbeddingModel
from bentos.embedding.servicer import EmbeddingServicer
from bentos.embedding.settings import EmbeddingSettings, ModelSettings
from bentos.models.cpu import prepare_cpu
from bentos.models.load_failure import check_source
from bentos.serving.capability import Mount
from bentos.serving.service import build_service, load_settings
from torchless.contracts.embedding.v1.embedding_pb2_grpc import add_EmbeddingServiceServicer_to_server

settings = load_settings(EmbeddingSettings)


def load(own: ModelSettings) -> EmbeddingModel:
    """Loads one model. Imports torch only here, because other commands of BentoML import this module."""
    check_source(own)
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
