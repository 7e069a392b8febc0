"""The gateway's settings."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from torchless.settings import SettingsError

SHIPPED = Path(__file__).parents[3] / "configs" / "gateway.yaml"


def test_the_shipped_file_states_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = GatewaySettings()
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(SHIPPED))
    assert GatewaySettings.load() == defaults


def test_the_environment_wins_one_value_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(SHIPPED))
    monkeypatch.setenv("TORCHLESS_GATEWAY_EMBEDDING__DEADLINE_S", "5")
    monkeypatch.setenv("TORCHLESS_GATEWAY_LIMITS__ITEMS", "7")
    settings = GatewaySettings.load()
    assert (settings.embedding.deadline_s, settings.embedding.address) == (5, "127.0.0.1:50051")
    assert (settings.limits.items, settings.limits.characters) == (7, 100_000)


def test_aliases_given_keep_the_one_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_MODELS__ALIASES", '{"small": "a/b"}')
    assert GatewaySettings.load().models.aliases == {"default/not-specified": "", "small": "a/b"}
    monkeypatch.setenv("TORCHLESS_GATEWAY_MODELS__ALIASES", '{"default/not-specified": "a/b"}')
    assert GatewaySettings.load().models.aliases == {"default/not-specified": "a/b"}


def test_aliases_of_models_that_rerank_are_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_MODELS__RERANK_ALIASES", '{"small": "a/b"}')
    models = GatewaySettings.load().models
    assert models.rerank_aliases == {"default/not-specified": "", "small": "a/b"}
    assert models.aliases == {"default/not-specified": ""}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIMITS__ITEMS", "0"),
        ("WORKERS", "many"),
        ("OPENAI__TOKEN_ID_VOCABULARY", "gpt2"),
        ("LIMITS__ITMES", "3"),
    ],
)
def test_values_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TORCHLESS_GATEWAY_{name}", value)
    with pytest.raises(SettingsError, match=name):
        GatewaySettings.load()


@pytest.mark.parametrize("name", ["AUTH__API_KEYS", "AUTH", "MODELS__ALIASES"])
def test_a_list_or_table_that_is_not_json_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_OPENAI__TOKEN_ID_VOCABULARY", "model")
    monkeypatch.setenv(f"TORCHLESS_GATEWAY_{name}", "plain-and-secret")
    with pytest.raises(SettingsError, match=f"TORCHLESS_GATEWAY_{name} .*write lists and tables as JSON") as caught:
        GatewaySettings.load()
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_there_is_room_for_the_largest_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_LIMITS__BODIES_MIB", "31")
    with pytest.raises(SettingsError, match="bodies_mib is less than body_mib"):
        GatewaySettings.load()


@pytest.mark.parametrize("given", ['["a-key-that-is-secret", "short"]', '"a-key-that-is-secret"'])
def test_keys_are_not_in_what_a_log_shows_of_settings_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", given)
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load()
    shown = "".join(traceback.format_exception(caught.value))
    assert "auth.api_keys" in shown
    assert "secret" not in shown


def test_one_value_of_the_gpu_services_limit_leaves_the_others_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_GPU__CONCURRENCY__MAX", "100")
    limit = GatewaySettings.load().gpu.concurrency
    assert (limit.enabled, limit.initial, limit.min, limit.max) == (True, 32, 16, 100)
