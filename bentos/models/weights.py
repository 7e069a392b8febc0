"""Source of a model's weights, and the arguments with which sentence-transformers loads it."""

from __future__ import annotations

import importlib
from typing import Any

from bentos.models.settings import WeightsSettings
from torchless.settings import SettingsError


def source(settings: WeightsSettings) -> str:
    """The folder of the model, or its Hugging Face id."""
    if settings.package:
        return str(importlib.import_module(settings.package).get_model_path())
    return settings.path or settings.id


def load_arguments(settings: WeightsSettings) -> dict[str, Any]:
    """Keyword arguments for every model class of sentence-transformers."""
    return {
        "device": settings.device,
        # A folder has no revisions.
        "revision": None if settings.path or settings.package else settings.revision,
        "trust_remote_code": settings.trust_remote_code,
        "model_kwargs": {"dtype": settings.dtype},
    }


def serialized_tokenizer(tokenizer: Any, settings: WeightsSettings) -> str:
    """The model's tokenizer as JSON, for `tokenizers`.

    Raises:
        SettingsError: It has no fast tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise SettingsError(f"model {settings.id}: it has no fast tokenizer (tokenizer.json), which is required")
    return str(backend.to_str())


def longest_input(
    stated: int | None, settings: WeightsSettings, *, inputs_per_item: int = 1, most: int | None = None
) -> int:
    """Longest input in tokens: the setting, or else the model's own limit.

    Args:
        stated: The model's own limit.
        settings: The model's settings.
        inputs_per_item: Inputs in one item of a batch.
        most: Number of positions of the model; None: no limit.

    Raises:
        SettingsError: There is no limit, or it exceeds the model's positions or the token budget.
    """
    max_tokens = settings.max_tokens or stated
    if max_tokens is not None and most is not None and max_tokens > most:
        raise SettingsError(f"model {settings.id}: `max_tokens` is {max_tokens}; the model has {most} positions")
    if max_tokens is None:
        raise SettingsError(f"model {settings.id}: the model does not define its longest input; set `max_tokens`")
    longest = max_tokens * inputs_per_item
    if longest > settings.max_batch_tokens:
        raise SettingsError(
            f"model {settings.id}: `max_batch_tokens` is {settings.max_batch_tokens}, but one input may have {longest} "
            "tokens; raise it or lower `max_tokens`"
        )
    return max_tokens
