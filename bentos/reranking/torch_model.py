"""Loads a reranking model of either kind on torch."""

from __future__ import annotations

from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers.utils import logging as transformers_logging

from bentos.models.torch_device import require_device
from bentos.models.weights import Weights
from bentos.reranking.model import RerankingModel
from bentos.reranking.settings import ModelSettings
from bentos.reranking.torch_cross_encoder import TorchCrossEncoder
from bentos.reranking.torch_late_interaction import TorchLateInteraction


def load(settings: ModelSettings) -> RerankingModel:
    """Loads one model onto its device.

    Raises:
        TorchlessError: GPU_UNAVAILABLE, when the device is missing.
        SettingsError: The settings do not fit the model.
    """
    require_device(settings.device)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would write to the log
    weights = Weights(settings)
    if settings.kind == "cross_encoder":
        classifier = CrossEncoder(weights.source, **weights.load_arguments()).eval()
        return TorchCrossEncoder(classifier, settings, weights.version())
    encoder = SentenceTransformer(weights.source, **weights.load_arguments()).eval()
    return TorchLateInteraction(encoder, settings, weights.version())
