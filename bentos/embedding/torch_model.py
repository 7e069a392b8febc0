"""An embedding model on torch, loaded by sentence-transformers. The only file of this bento that imports torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers.utils import logging as transformers_logging

from bentos.embedding.model import BatchItem, ModelInfo
from bentos.embedding.settings import ModelSettings
from bentos.models.fingerprint import fingerprint
from bentos.models.tokenizer import HubTokenizer
from bentos.models.tokens import EncodedText, Side, TokenPiece
from bentos.models.torch_device import inference_mode, require_device
from bentos.models.torch_padding import Padder
from bentos.models.torch_positions import positions, stated_length
from bentos.models.weights import Weights, longest_input, serialized_tokenizer
from torchless.settings import SettingsError


def load(settings: ModelSettings) -> TorchEmbeddingModel:
    """Loads one model onto its device.

    Raises:
        TorchlessError: GPU_UNAVAILABLE, when the device is missing.
        SettingsError: The settings do not fit the model.
    """
    require_device(settings.device)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would write to the log
    weights = Weights(settings)
    model = SentenceTransformer(weights.source, **weights.load_arguments())
    model.eval()
    return TorchEmbeddingModel(model, settings, weights.version())


class TorchEmbeddingModel:
    """Runs the modules of a `SentenceTransformer` one by one; see `EmbeddingModel` for the methods.

    Tokenization is separate, so that it runs while the device computes. The final `Normalize` is left out, so that
    callers can have the raw vectors.

    Args:
        model: The loaded model.
        settings: The model's settings.
        weights: Version of its files.

    Raises:
        SettingsError: The model has no fast tokenizer, or the token budget is smaller than its longest input.
    """

    def __init__(self, model: SentenceTransformer, settings: ModelSettings, weights: str) -> None:
        self._modules: list[Any] = [module for module in model if not isinstance(module, Normalize)]
        max_tokens = longest_input(stated_length(model), settings, most=positions(model))
        self._tokenizer = HubTokenizer(serialized_tokenizer(model.tokenizer, settings), max_tokens)
        self._padder = Padder(model.tokenizer, torch.device(settings.device))
        self._pooling = next((m for m in self._modules if isinstance(m, Pooling)), None)
        self._info = self._describe(model, settings, max_tokens, weights)

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        return self._info

    def encode(self, texts: Sequence[str], truncate: Side | None) -> list[EncodedText]:
        """See `EmbeddingModel`."""
        return self._tokenizer.encode(texts, truncate)

    def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[TokenPiece]]:
        """See `EmbeddingModel`."""
        return self._tokenizer.tokenize(texts, add_special_tokens)

    def detokenize(self, ids: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        """See `EmbeddingModel`."""
        return self._tokenizer.detokenize(ids, skip_special_tokens)

    def prompt_tokens(self, prompt_name: str | None) -> int:
        """See `EmbeddingModel`."""
        if prompt_name is None or self._pooling is None or self._pooling.include_prompt:
            return 0
        prompt = self._info.prompts[prompt_name]
        return self._tokenizer.leading_tokens(prompt) if prompt else 0

    def embed(self, items: Sequence[BatchItem], prompt_tokens: int) -> list[NDArray[np.float32]]:
        """See `EmbeddingModel`."""
        with inference_mode():
            features = self._padder.batch([item.encoded.ids for item in items])
            if prompt_tokens:
                features["prompt_length"] = prompt_tokens
            for module in self._modules:
                features = module(features)
            return self._vectors(items, features)

    def _vectors(self, items: Sequence[BatchItem], features: dict[str, Any]) -> list[NDArray[np.float32]]:
        # Only the requested vectors are copied from the device.
        pooled = () if all(item.per_token for item in items) else _to_numpy(features["sentence_embedding"])
        tokens = _to_numpy(features["token_embeddings"]) if any(item.per_token for item in items) else ()
        vectors: list[NDArray[np.float32]] = []
        for row, item in enumerate(items):
            if item.per_token:
                # A copy, so that one short input does not keep the whole batch in memory.
                columns = self._padder.columns(len(item.encoded.ids), tokens[row].shape[0])
                vectors.append(tokens[row][columns].copy())
            else:
                vectors.append(pooled[row])
        return vectors

    def _describe(
        self, model: SentenceTransformer, settings: ModelSettings, max_tokens: int, weights: str
    ) -> ModelInfo:
        dimensions = model.get_embedding_dimension()
        if dimensions is None:
            raise SettingsError(f"model {settings.id}: the model does not define the dimensions of its vectors")
        if invalid := [d for d in settings.matryoshka_dimensions if not 0 < d < dimensions]:
            raise SettingsError(f"model {settings.id}: `matryoshka_dimensions` {invalid} must be below {dimensions}")
        mode = "none" if self._pooling is None else self._pooling.pooling_mode
        pooling = mode if isinstance(mode, str) else "+".join(mode)
        prompts = {**{name: text or "" for name, text in model.prompts.items()}, **settings.prompts}
        return ModelInfo(
            id=settings.id,
            revision=fingerprint(
                weights,
                backend="torch",
                dtype=settings.dtype,
                max_tokens=max_tokens,
                pooling=pooling,
                prompts=prompts,
                default_prompt=model.default_prompt_name,
                query_prompt=settings.query_prompt,
                document_prompt=settings.document_prompt,
                trust_remote_code=settings.trust_remote_code,
            ),
            dimensions=dimensions,
            max_tokens=max_tokens,
            matryoshka_dimensions=tuple(sorted(settings.matryoshka_dimensions, reverse=True)),
            prompts=prompts,
            default_prompt_name=model.default_prompt_name,
            device=settings.device,
            dtype=settings.dtype,
            pooling=pooling,
            max_batch_tokens=settings.max_batch_tokens,
            vocabulary_size=self._tokenizer.vocabulary_size,
            created=int(time.time()),
        )


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()
