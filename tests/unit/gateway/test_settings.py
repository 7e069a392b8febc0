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
    assert (settings.limits.items, settings.limits.documents) == (7, 10_000)


def test_given_aliases_keep_the_built_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_MODELS__ALIASES", '{"small": "a/b"}')
    assert GatewaySettings.load().models.aliases == {"default/not-specified": "", "small": "a/b"}
    monkeypatch.setenv("TORCHLESS_GATEWAY_MODELS__ALIASES", '{"default/not-specified": "a/b"}')
    assert GatewaySettings.load().models.aliases == {"default/not-specified": "a/b"}


def test_reranking_models_have_separate_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_invalid_values_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
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


def test_body_memory_below_the_largest_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_LIMITS__BODIES_MIB", "31")
    with pytest.raises(SettingsError, match="bodies_mib is less than body_mib"):
        GatewaySettings.load()


@pytest.mark.parametrize("given", ['["a-key-that-is-secret", "short"]', '"a-key-that-is-secret"'])
def test_errors_about_settings_show_no_keys(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", given)
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load()
    shown = "".join(traceback.format_exception(caught.value))
    assert "auth.api_keys" in shown
    assert "secret" not in shown


def test_one_value_of_the_gpu_limit_leaves_the_others_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_GPU__CONCURRENCY__MAX", "100")
    limit = GatewaySettings.load().gpu.concurrency
    assert (limit.enabled, limit.initial, limit.min, limit.max) == (True, 32, 16, 100)


def test_client_defaults_hold_for_every_service_that_does_not_override_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("clients: {retry: {attempts: 7, budget: 0.5}, slow_start_s: 20}\nreranking: {retry: {attempts: 2}}")
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(file))
    monkeypatch.setenv("TORCHLESS_GATEWAY_GPU__SLOW_START_S", "99")
    monkeypatch.setenv("TORCHLESS_GATEWAY_CLIENTS__BREAKER__OPEN_S", "5")
    settings = GatewaySettings.load()
    services = (settings.embedding, settings.reranking, settings.gpu)
    assert [each.retry.attempts for each in services] == [7, 2, 7]
    assert [each.retry.budget for each in services] == [0.5, 0.5, 0.5]
    assert [each.slow_start_s for each in services] == [20, 20, 99]
    assert [each.breaker.open_s for each in services] == [5, 5, 5]


def test_client_defaults_do_not_change_the_own_settings_of_a_service() -> None:
    settings = GatewaySettings(clients={"concurrency": {"initial": 50, "max": 60}})
    assert [each.concurrency.max for each in (settings.embedding, settings.reranking, settings.gpu)] == [60, 60, 64]


def test_a_fault_in_the_client_defaults_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_CLIENTS__RETRY__ATTEMPTS", "0")
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load()
    assert caught.value.faults == ("clients.retry.attempts: Input should be greater than or equal to 1",)


def test_every_service_has_a_concurrency_limit_by_default() -> None:
    settings = GatewaySettings()
    assert all(each.concurrency.enabled for each in (settings.embedding, settings.reranking, settings.gpu))
