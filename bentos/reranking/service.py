"""The service that `bentoml serve-grpc bentos.reranking.service:svc` serves."""

from __future__ import annotations

from bentos.models.cpu import prepare_cpu
from bentos.models.load_failure import check_source
from bentos.reranking.call_facts import describe
from bentos.reranking.model import RerankingModel
from bentos.reranking.servicer import RerankingServicer
from bentos.reranking.settings import ModelSettings, RerankingSettings
from bentos.serving.capability import Mount
from bentos.serving.service import build_service, load_settings
from torchless.contracts.reranking.v1.reranking_pb2_grpc import add_RerankingServiceServicer_to_server

settings = load_settings(RerankingSettings)


def load(own: ModelSettings) -> RerankingModel:
    """Loads one model. Imports torch only here, because other commands of BentoML import this module."""
    check_source(own)
    prepare_cpu(settings)
    from bentos.reranking import torch_model

    return torch_model.load(own)


svc = build_service(
    "torchless-reranking",
    Mount(
        full_name="torchless.reranking.v1.RerankingService",
        make=lambda: RerankingServicer(settings, load),
        add_to_server=add_RerankingServiceServicer_to_server,
        describe=describe,
    ),
    settings,
)
