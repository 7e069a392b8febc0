"""Where a model is loaded from, and the arguments that sentence-transformers loads it with."""

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
    """Keyword arguments of every model class of sentence-transformers."""
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
        raise SettingsError(f"model {settings.id}: it has no fast tokenizer (tokenizer.json), which is needed")
    return str(backend.to_str())


def longest_input(
    stated: int | None, settings: WeightsSettings, *, inputs_per_item: int = 1, most: int | None = None
) -> int:
    """Longest input in tokens: as set, or as the model states.

    Args:
        stated: What the model states.
        settings: The model's settings.
        inputs_per_item: Inputs that one item of a batch is made of.
        most: What it can read at all; None: as much as is set.

    Raises:
        SettingsError: Neither says, or the model or a batch does not hold it.
    """
    max_tokens = settings.max_tokens or stated
    if max_tokens is not None and most is not None and max_tokens > most:
        raise SettingsError(f"model {settings.id}: `max_tokens` is {max_tokens} and the model has positions for {most}")
    if max_tokens is None:
        raise SettingsError(f"model {settings.id}: it does not state its longest input; set `max_tokens`")
    longest = max_tokens * inputs_per_item
    if longest > settings.max_batch_tokens:
        raise SettingsError(
            f"model {settings.id}: `max_batch_tokens` is {settings.max_batch_tokens} and one input may have {longest}; "
            "raise it or lower `max_tokens`"
        )
    return max_tokens
