"""Settings of the embedding bento."""

from __future__ import annotations

from pathlib import Path

import pytest

from bentos.embedding.settings import DEFAULT_MODEL, EmbeddingSettings
from torchless.settings import SettingsError


def test_default_is_the_packaged_model_on_the_cpu() -> None:
    assert EmbeddingSettings.load().models == (DEFAULT_MODEL,)


def test_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "embedding.yaml"
    file.write_text("max_inputs: 7\nbatching: {max_items: 3, window_ms: 5}\nmodels: [{id: one, path: m}]\n")
    monkeypatch.setenv("TORCHLESS_EMBEDDING_CONFIG", str(file))
    monkeypatch.setenv("TORCHLESS_EMBEDDING_BATCHING__MAX_ITEMS", "4")
    settings = EmbeddingSettings.load()
    assert (settings.max_inputs, settings.batching.max_items, settings.batching.window_ms) == (7, 4, 5)
    assert settings.models[0].id == "one"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("max_inputs: 0", "embedding.yaml, line 1: max_inputs should be greater than or equal to 1"),
        ("batching: {max_itmes: 3}", "batching.max_itmes"),
        ("models: []", "models"),
        ("models: [{id: a, device: tpu}]", "models.0.device"),
        ("models: [{id: a}, {id: a}]", "two have the same id"),
        ("models: [{id: a, path: p, package: q}]", "not both"),
    ],
)
def test_invalid_setting_is_named(text: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "embedding.yaml"
    file.write_text(text)
    monkeypatch.setenv("TORCHLESS_EMBEDDING_CONFIG", str(file))
    with pytest.raises(SettingsError) as caught:
        EmbeddingSettings.load()
    assert named in str(caught.value)


def test_missing_settings_file_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_EMBEDDING_CONFIG", "nowhere.yaml")
    with pytest.raises(SettingsError, match=r"TORCHLESS_EMBEDDING_CONFIG names a file that does not exist"):
        EmbeddingSettings.load()
