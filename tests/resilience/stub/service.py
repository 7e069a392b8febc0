"""The service that `bentoml serve-grpc tests.resilience.stub.service:svc` serves."""

from __future__ import annotations

from pathlib import Path

from bentos.embedding.call_facts import describe
from bentos.embedding.servicer import EmbeddingServicer
from bentos.embedding.settings import ModelSettings
from bentos.serving.capability import Mount
from bentos.serving.service import build_service
from tests.resilience.stub.faults import FaultFile
from tests.resilience.stub.model import StubModel
from tests.resilience.stub.settings import StubSettings
from torchless.contracts.embedding.v1.embedding_pb2_grpc import add_EmbeddingServiceServicer_to_server

settings = StubSettings.load()


def load(own: ModelSettings) -> StubModel:
    """A model of that name and revision."""
    return StubModel(
        id=own.id,
        revision=own.revision,
        max_tokens=64,
        max_batch_tokens=4096,
        text_s=settings.text_ms / 1000,
        faults=FaultFile(Path(settings.faults or "/nonexistent")),
    )


svc = build_service(
    "torchless-stub",
    Mount(
        full_name="torchless.embedding.v1.EmbeddingService",
        make=lambda: EmbeddingServicer(settings, load),
        add_to_server=add_EmbeddingServiceServicer_to_server,
        describe=describe,
        lost_device_is_final=settings.lost_device_is_final,
    ),
    settings,
)
