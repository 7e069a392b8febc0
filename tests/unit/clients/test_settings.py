"""Defaults for all services, and what one service overrides."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from torchless.clients.adaptive_limit import ConcurrencySettings
from torchless.clients.settings import BreakerSettings, ClientDefaults, ClientSettings
from torchless.settings import ProgramSettings


class SmallClientSettings(ClientSettings):
    address: str = "b:2"
    deadline_s: float = 60.0
    concurrency: ConcurrencySettings = ConcurrencySettings(initial=4, min=2, max=8)


class Settings(ProgramSettings):
    env_prefix: ClassVar[str] = "TORCHLESS_TEST_"
    clients: ClientDefaults = ClientDefaults()
    large: ClientSettings = Field(default=ClientSettings(address="a:1"))
    small: SmallClientSettings = SmallClientSettings()

    @field_validator("large", "small", mode="before")
    @classmethod
    def _complete(cls, service: Any, info: ValidationInfo) -> Any:
        kind = {"large": ClientSettings, "small": SmallClientSettings}[info.field_name or ""]
        return kind.complete(service, info.data["clients"]) if "clients" in info.data else service


def test_a_default_holds_for_every_service() -> None:
    settings = Settings.model_validate({"clients": {"breaker": {"failures": 9}, "slow_start_s": 3}})
    assert [each.breaker.failures for each in (settings.large, settings.small)] == [9, 9]
    assert [each.slow_start_s for each in (settings.large, settings.small)] == [3, 3]
    assert settings.large.address == "a:1"


def test_a_service_overrides_single_settings_of_a_group() -> None:
    service = {"address": "c:3", "breaker": {"failures": 2}}
    settings = Settings.model_validate({"clients": {"breaker": {"failures": 9, "open_s": 7}}, "large": service})
    assert settings.large.breaker == BreakerSettings(failures=2, open_s=7)
    assert settings.small.breaker == BreakerSettings(failures=9, open_s=7)
    assert settings.large.address == "c:3"


def test_a_services_own_settings_are_not_taken_from_the_defaults() -> None:
    settings = Settings.model_validate({"clients": {"concurrency": {"max": 500}}})
    assert SmallClientSettings.own_settings() == {"address", "deadline_s", "concurrency"}
    assert ClientSettings.own_settings() == {"address", "deadline_s"}
    assert (settings.large.concurrency.max, settings.small.concurrency.max) == (500, 8)
    assert (settings.large.deadline_s, settings.small.deadline_s) == (30, 60)


def test_settings_objects_are_completed_as_tables_are() -> None:
    given = ClientSettings(address="c:3", breaker=BreakerSettings(failures=2))
    settings = Settings(clients=ClientDefaults(breaker=BreakerSettings(open_s=7)), large=given)
    assert settings.large.breaker == BreakerSettings(failures=2, open_s=7)


def test_variables_override_defaults_and_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_TEST_CLIENTS__BREAKER__OPEN_S", "7")
    monkeypatch.setenv("TORCHLESS_TEST_SMALL__BREAKER__FAILURES", "2")
    settings = Settings.load()
    assert settings.small.breaker == BreakerSettings(failures=2, open_s=7)
    assert settings.large.breaker == BreakerSettings(open_s=7)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"clients": {"breaker": {"open_s": 0}}}, "clients.breaker.open_s"),
        ({"small": {"breaker": {"open_s": 0}}}, "small.breaker.open_s"),
        ({"small": {"brake": 1}}, "small"),
        ({"small": "b:2"}, "small"),
    ],
)
def test_a_fault_is_reported_once_where_it_was_written(given: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(given)
    (fault,) = caught.value.errors()
    assert ".".join(map(str, fault["loc"])).startswith(name)


def test_an_empty_address_is_refused_unless_the_service_is_optional() -> None:
    class Optional(ClientSettings):
        is_optional = True

    assert Optional(address="").address == ""
    with pytest.raises(ValidationError):
        ClientSettings(address="")
