"""Source and version of a model's weights, and the arguments with which sentence-transformers loads it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from bentos.models.folder_hash import FolderHash
from bentos.models.settings import WeightsSettings
from torchless.settings import SettingsError


def source(settings: WeightsSettings) -> str:
    """The folder of the model, or its Hugging Face id."""
    if settings.package:
        return str(importlib.import_module(settings.package).get_model_path())
    return settings.path or settings.id


class Weights:
    """The files of a model. Create it right before the model is loaded; a folder is hashed meanwhile.

    Args:
        settings: The model's settings.
    """

    def __init__(self, settings: WeightsSettings) -> None:
        self._settings = settings
        self.source = source(settings)
        """The folder of the model, or its Hugging Face id."""
        folder = Path(self.source)
        is_folder = settings.path is not None or folder.is_dir()
        self._hash = FolderHash(folder) if is_folder else None
        # A branch may move between two of the model's files.
        self._commit = None if is_folder else _commit(self.source, settings.revision)

    def load_arguments(self) -> dict[str, Any]:
        """Keyword arguments for every model class of sentence-transformers."""
        return {
            "device": self._settings.device,
            "revision": self._commit,
            "trust_remote_code": self._settings.trust_remote_code,
            "model_kwargs": {"dtype": self._settings.dtype},
        }

    def version(self) -> str:
        """The hash of the folder, or the commit. Call it once the model is loaded.

        Raises:
            SettingsError: The files changed while the model was loaded.
        """
        return str(self._commit) if self._hash is None else self._hash.result()


def _commit(repository: str, revision: str) -> str:
    """The commit that `revision` of a Hugging Face repository is, from the hub or else from its local cache.

    Raises:
        RevisionResolutionError, HfHubHTTPError: There is no such repository or revision, or the hub does not answer.
    """
    from huggingface_hub import resolve_revision
    from huggingface_hub.errors import RepositoryNotFoundError

    # The loader uses the same variable.
    cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    try:
        return resolve_revision(repository, revision=revision, cache_dir=cache).resolved
    except RepositoryNotFoundError:
        # A private repository that was downloaded earlier, with a token that is missing now.
        return resolve_revision(repository, revision=revision, cache_dir=cache, local_files_only=True).resolved


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
