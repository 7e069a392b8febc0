"""Why a model cannot be loaded: turns what torch, transformers and the hub raise into errors of ours.

The message is for callers and names no path and no address; a note on the error has the details for the log.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from bentos.models.settings import WeightsSettings
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsError

_LONGEST_DETAIL = 300
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
_HUB_TIMEOUT_S = 5.0
_NO_REPOSITORY = "the Hugging Face Hub has no such model; check `id`, or set HF_TOKEN if it is private"


def check_source(settings: WeightsSettings) -> None:
    """Checks, before torch is imported, that the model's folder or package exists or that it can be downloaded.

    Raises:
        TorchlessError: MODEL_UNAVAILABLE; LOADING, when the hub cannot be reached.
    """
    if settings.package and importlib.util.find_spec(settings.package) is None:
        raise _failure(settings, "the package that `package` names is not installed", settings.package)
    if not settings.path and not settings.package and not Path(settings.id).is_dir():
        _check_hub(settings)
    if not settings.path:
        return
    folder = Path(settings.path)
    if not folder.is_dir():
        raise _failure(settings, "the folder that `path` names does not exist", settings.path)
    if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
        raise _failure(settings, "the folder that `path` names holds no model (no config.json)", settings.path)


def load_failure(error: Exception, settings: WeightsSettings) -> TorchlessError:
    """What `error`, raised while the model was loaded, means.

    Returns:
        MODEL_UNAVAILABLE; LOADING, when time can mend it; errors of ours are returned unchanged.
    """
    if isinstance(error, TorchlessError):
        return error
    if isinstance(error, SettingsError):
        return _failure(settings, str(error).removeprefix(f"model {settings.id}: "))
    causes = list(_causes(error))
    detail = next((_line(each) for each in causes if str(each)), type(error).__name__)
    if any(_is_about_memory(each) for each in causes):
        return _failure(settings, f"it does not fit into the memory of {settings.device}", detail)
    if any(_comes_from(each, "safetensors") or _is_broken_archive(each) for each in causes):
        return _failure(settings, "the file of its weights is damaged", detail)
    if not settings.path and not settings.package:
        found = _hub_failure(causes, settings, detail)
        if found is not None:
            return found
    return _failure(settings, "its files cannot be loaded; the service's log says why", detail)


def warm_up_failure(error: Exception) -> TorchlessError:
    """What `error`, raised by one of the first batches, means; errors of ours are returned unchanged."""
    if isinstance(error, TorchlessError):
        return error
    message = "the first batches failed; the service's log says why"
    if any(_is_about_memory(each) for each in _causes(error)):
        message = "the first batches do not fit into the memory of the device; lower `max_batch_tokens`"
    failure = TorchlessError(ErrorKind.MODEL_UNAVAILABLE, message)
    failure.add_note(_line(error))
    return failure


def _hub_failure(causes: list[BaseException], settings: WeightsSettings, detail: str) -> TorchlessError | None:
    """The error of the Hugging Face Hub among `causes`; None: there is none."""
    from huggingface_hub import constants, errors

    messages: dict[type[BaseException], str] = {
        errors.GatedRepoError: "its repository is gated; set HF_TOKEN to a token that may read it",
        errors.RevisionNotFoundError: f"its repository has no revision {settings.revision}",
        errors.HFValidationError: "its id is no id of the Hugging Face Hub",
        errors.RepositoryNotFoundError: _NO_REPOSITORY,
    }
    for each in causes:
        for kind, message in messages.items():
            if isinstance(each, kind):
                return _failure(settings, message, detail)
    if any(map(_is_about_connection, causes)):
        if constants.is_offline_mode():
            return _failure(settings, "HF_HUB_OFFLINE is set, and the model is not in the local cache", detail)
        return _no_hub(settings)
    return None


def _check_hub(settings: WeightsSettings) -> None:
    """Fails within seconds if the model must be downloaded and cannot: the loaders would try for minutes."""
    from huggingface_hub import constants, get_session, snapshot_download

    try:
        cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME")  # the loader uses the same variable
        snapshot_download(settings.id, revision=settings.revision, cache_dir=cache, local_files_only=True)
    except Exception as error:
        if constants.is_offline_mode():
            return  # loading says what is missing
        if (failure := _hub_failure([error], settings, _line(error))) is not None and not failure.kind.policy.transient:
            raise failure from error
        try:
            get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
        except Exception as unreachable:
            raise _no_hub(settings) from unreachable


def _no_hub(settings: WeightsSettings) -> TorchlessError:
    return TorchlessError(
        ErrorKind.LOADING, f"model {settings.id}: the Hugging Face Hub cannot be reached to download it"
    )


def _is_about_connection(error: BaseException) -> bool:
    """Whether `error` is about a hub that does not answer: the classes of several HTTP libraries, by their names."""
    from huggingface_hub import errors

    kinds = ConnectionError | TimeoutError | errors.HfHubHTTPError | errors.LocalEntryNotFoundError
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, kinds) or "TransportError" in names or "RevisionResolutionError" in names


def _is_about_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


def _is_broken_archive(error: BaseException) -> bool:
    return _comes_from(error, "_pickle") or "PytorchStreamReader" in str(error)


def _comes_from(error: BaseException, package: str) -> bool:
    return type(error).__module__.partition(".")[0].startswith(package) or type(error).__name__ == "SafetensorError"


def _failure(settings: WeightsSettings, message: str, detail: str = "") -> TorchlessError:
    error = TorchlessError(ErrorKind.MODEL_UNAVAILABLE, f"model {settings.id}: {message}")
    if detail:
        error.add_note(detail)
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it was raised from, the newest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str:
    """The type of `error` and the beginning of its message, in one line."""
    text = " ".join(str(error).split())
    shortened = text if len(text) <= _LONGEST_DETAIL else f"{text[:_LONGEST_DETAIL]}..."
    return f"{type(error).__name__}: {shortened}"
