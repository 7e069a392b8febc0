"""A cross-encoder on torch: reads query and document together and gives one logit.

Nogueira and Cho, "Passage re-ranking with BERT", 2019 (https://arxiv.org/abs/1901.04085).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from bentos.models.torch_device import inference_mode
from bentos.models.torch_padding import Padder
from bentos.models.torch_positions import positions, stated_length
from bentos.models.weights import longest_input, serialized_tokenizer
from bentos.reranking.model import EncodedQuery, LongDocuments, ModelInfo, Pair, ScoreForm
from bentos.reranking.model_info import model_info
from bentos.reranking.settings import ModelSettings
from bentos.reranking.tokenization import TruncatingTokenizer, truncated_documents
from torchless.settings import SettingsError

_CLASSIFIER = "ForSequenceClassification"


class TorchCrossEncoder:
    """Runs the modules of a `CrossEncoder` one by one; see `RerankingModel` for the methods.

    Args:
        model: The loaded model.
        settings: The model's settings.
        weights: Version of its files.

    Raises:
        SettingsError: The model does not give one score per pair, or needs a prompt or a chat template.
    """

    def __init__(self, model: CrossEncoder, settings: ModelSettings, weights: str) -> None:
        _check_is_classifier(model, settings)
        self._modules: list[Any] = list(model)
        self._activation: Any = model.activation_fn
        max_tokens = longest_input(stated_length(model), settings, most=positions(model))
        self._tokenizer = TruncatingTokenizer(
            serialized_tokenizer(model.tokenizer, settings), max_tokens, settings.window_overlap_tokens, pairs=True
        )
        self._padder = Padder(model.tokenizer, torch.device(settings.device))
        self._info = model_info(settings, max_tokens, weights)

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        return self._info

    def encode(
        self, query: str, documents: Sequence[str], long_documents: LongDocuments, max_tokens_per_doc: int
    ) -> EncodedQuery:
        """See `RerankingModel`."""
        tokenizer = self._tokenizer
        keep_end = long_documents == "cut_start"
        texts = tokenizer.shorten(documents, max_tokens_per_doc, keep_end=keep_end)
        short_query = tokenizer.shorten_query(query, long_documents)
        if short_query != query and long_documents in {"cut", "cut_start"}:
            texts = tokenizer.shorten_like_query(query, texts, keep_end=keep_end)
        encoded = tokenizer.encode([(short_query, text) for text in texts], long_documents)
        return EncodedQuery(
            documents=[[Pair(window.ids, window.type_ids) for window in each.windows] for each in encoded],
            query_tokens=tokenizer.length(query) if long_documents == "refuse" else 0,
            truncated=truncated_documents(documents, texts, encoded),
            query_truncated=short_query != query or any(each.query_truncated for each in encoded),
        )

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """See `RerankingModel`."""
        with inference_mode():
            features = self._padder.batch([pair.ids for pair in pairs], [pair.type_ids for pair in pairs])
            for module in self._modules:
                features = module(features)
            scores: list[float] = features["scores"].float().reshape(len(pairs)).cpu().tolist()
            return scores

    def transform_scores(self, scores: NDArray[np.float32], form: ScoreForm) -> NDArray[np.float32]:
        """See `RerankingModel`; `unit` is the logistic function of the logit."""
        if form == "raw":
            return scores
        activation = torch.sigmoid if form == "unit" else self._activation
        with torch.inference_mode():
            activated: NDArray[np.float32] = activation(torch.from_numpy(scores)).float().numpy()
            return activated


def _check_is_classifier(model: CrossEncoder, settings: ModelSettings) -> None:
    if model.num_labels != 1:
        raise SettingsError(f"model {settings.id}: it has {model.num_labels} labels; a reranker must have exactly one")
    if model.default_prompt_name is not None:
        raise SettingsError(f"model {settings.id}: it puts a prompt before its inputs, which is not supported")
    architectures = getattr(model.config, "architectures", None) or ()
    if any(name.endswith("ForCausalLM") for name in architectures):
        raise SettingsError(f"model {settings.id}: it is a causal language model; a sequence classifier is required")
    # Weights without a classification head load with a random head and a warning.
    loaded = type(model.model).__name__
    if loaded.endswith(_CLASSIFIER) and architectures and not any(name.endswith(_CLASSIFIER) for name in architectures):
        raise SettingsError(
            f"model {settings.id}: its weights are of {architectures[0]}, which has no classifier; for an embedding "
            "model set `kind: late_interaction`"
        )
