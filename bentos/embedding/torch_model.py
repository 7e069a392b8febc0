"""An embedding model on torch, loaded by sentence-transformers. The only file of this bento that imports torch."""

from __future__ import annotations

import importlib
import logging
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

from bentos.embedding.model import EncodedText, ModelCard, PassItem, Side, TokenPiece
from bentos.embedding.settings import ModelSettings
from bentos.embedding.tokenizer import HubTokenizer
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsError

logger = logging.getLogger(__name__)


def use_cpu_threads(count: int) -> None:
    """Threads of a pass on the CPU; 0 leaves torch's own choice."""
    if count:
        torch.set_num_threads(count)


def load(settings: ModelSettings) -> TorchEmbeddingModel:
    """Loads one model onto its device.

    Raises:
        TorchlessError: GPU_UNAVAILABLE, when the device is not there.
        SettingsError: The settings do not fit the model.
    """
    require_device(settings.device)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would write into the log
    model = SentenceTransformer(
        _source(settings),
        device=settings.device,
        revision=None if settings.path or settings.package else settings.revision,
        trust_remote_code=settings.trust_remote_code,
        model_kwargs={"dtype": settings.dtype},
    )
    model.eval()
    return TorchEmbeddingModel(model, settings)


def require_device(device: str) -> None:
    """Does nothing when the device is there.

    Raises:
        TorchlessError: GPU_UNAVAILABLE.
    """
    if device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(device.partition(":")[2] or 0)
    if index >= count:
        raise TorchlessError(
            ErrorKind.GPU_UNAVAILABLE,
            f"the service is set to device {device} and this machine has {count} CUDA devices",
        )


def _source(settings: ModelSettings) -> str:
    if settings.package:
        return str(importlib.import_module(settings.package).get_model_path())
    return settings.path or settings.id


class TorchEmbeddingModel:
    """A `SentenceTransformer` whose parts are driven one by one; see `EmbeddingModel` for the methods.

    Tokenization is taken out, so that it runs beside the device, and the final `Normalize` is left out, so that callers
    can have the raw vectors.

    Raises:
        SettingsError: The model has no fast tokenizer, or the token budget is smaller than its longest input.
    """

    def __init__(self, model: SentenceTransformer, settings: ModelSettings) -> None:
        self._modules: list[Any] = [module for module in model if not isinstance(module, Normalize)]
        tokenizer = model.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise SettingsError(f"model {settings.id}: it has no fast tokenizer (tokenizer.json), which is needed")
        max_tokens = settings.max_tokens or model.max_seq_length
        if max_tokens is None:
            raise SettingsError(f"model {settings.id}: it does not state its longest input; set `max_tokens`")
        if max_tokens > settings.max_batch_tokens:
            raise SettingsError(
                f"model {settings.id}: `max_batch_tokens` is {settings.max_batch_tokens} and one input may have "
                f"{max_tokens}; raise it or lower `max_tokens`"
            )
        self._tokenizer = HubTokenizer(backend.to_str(), max_tokens)
        self._device = torch.device(settings.device)
        self._pad_id: int = tokenizer.pad_token_id or 0
        self._pads_left: bool = tokenizer.padding_side == "left"
        self._wants_type_ids = "token_type_ids" in tokenizer.model_input_names
        self._pooling = next((m for m in self._modules if isinstance(m, Pooling)), None)
        self._card = self._describe(model, settings, max_tokens)

    @property
    def card(self) -> ModelCard:
        """Facts about the model."""
        return self._card

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
        prompt = self._card.prompts[prompt_name]
        return self._tokenizer.leading_tokens(prompt) if prompt else 0

    def embed(self, items: Sequence[PassItem], prompt_tokens: int) -> list[NDArray[np.float32]]:
        """See `EmbeddingModel`."""
        try:
            with torch.inference_mode():
                features = self._features(items, prompt_tokens)
                for module in self._modules:
                    features = module(features)
                return self._vectors(items, features)
        except torch.AcceleratorError as error:
            # A device that failed once answers nothing more to this process.
            raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, "the device failed while it was in use") from error

    def _features(self, items: Sequence[PassItem], prompt_tokens: int) -> dict[str, Any]:
        longest = max(len(item.encoded.ids) for item in items)
        ids = np.full((len(items), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(items), longest), dtype=np.int64)
        for row, item in enumerate(items):
            where = self._columns(len(item.encoded.ids), longest)
            ids[row, where] = item.encoded.ids
            mask[row, where] = 1
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids).to(self._device, non_blocking=True),
            "attention_mask": torch.from_numpy(mask).to(self._device, non_blocking=True),
            "modality": "text",
        }
        if self._wants_type_ids:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        if prompt_tokens:
            features["prompt_length"] = prompt_tokens
        return features

    def _columns(self, length: int, longest: int) -> slice:
        return slice(longest - length, longest) if self._pads_left else slice(0, length)

    def _vectors(self, items: Sequence[PassItem], features: dict[str, Any]) -> list[NDArray[np.float32]]:
        # What nobody asked for stays on the device.
        pooled = () if all(item.per_token for item in items) else _to_numpy(features["sentence_embedding"])
        tokens = _to_numpy(features["token_embeddings"]) if any(item.per_token for item in items) else ()
        vectors: list[NDArray[np.float32]] = []
        for row, item in enumerate(items):
            if item.per_token:
                # A copy, so that one short input does not keep the whole pass alive.
                columns = self._columns(len(item.encoded.ids), tokens[row].shape[0])
                vectors.append(tokens[row][columns].copy())
            else:
                vectors.append(pooled[row])
        return vectors

    def _describe(self, model: SentenceTransformer, settings: ModelSettings, max_tokens: int) -> ModelCard:
        dimensions = model.get_embedding_dimension()
        if dimensions is None:
            raise SettingsError(f"model {settings.id}: it does not state the dimensions of its vectors")
        if too_long := [d for d in settings.matryoshka_dimensions if not 0 < d < dimensions]:
            raise SettingsError(f"model {settings.id}: `matryoshka_dimensions` {too_long} are not below {dimensions}")
        mode = "none" if self._pooling is None else self._pooling.pooling_mode
        return ModelCard(
            id=settings.id,
            revision=settings.revision,
            dimensions=dimensions,
            max_tokens=max_tokens,
            matryoshka_dimensions=tuple(sorted(settings.matryoshka_dimensions, reverse=True)),
            prompts={**{name: text or "" for name, text in model.prompts.items()}, **settings.prompts},
            default_prompt_name=model.default_prompt_name,
            device=settings.device,
            dtype=settings.dtype,
            pooling=mode if isinstance(mode, str) else "+".join(mode),
            max_batch_tokens=settings.max_batch_tokens,
            vocabulary_size=self._tokenizer.vocabulary_size,
            created=int(time.time()),
        )


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()
