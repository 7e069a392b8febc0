"""Keys are read from every header that clients send them in, and show nowhere."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from gateway.http.api_keys import KeyRing, given_keys
from gateway.settings import AuthSettings, GatewaySettings
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsError

KEY = "a-key-that-is-secret"


@pytest.mark.parametrize(
    ("headers", "keys"),
    [
        ([], []),
        ([("authorization", "Bearer abc")], ["abc"]),
        ([("authorization", "bEARER   abc ")], ["abc"]),
        ([("authorization", "abc")], ["abc"]),
        ([("x-api-key", "abc")], ["abc"]),
        ([("authorization", "Bearer")], []),
        ([("authorization", "")], []),
        ([("authorization", "Bearerabc")], ["Bearerabc"]),
        ([("authorization", "Basic abc"), ("x-api-key", "def")], ["Basic abc", "def"]),
        ([("api-key", "abc"), ("cookie", "abc")], []),
    ],
)
def test_what_a_request_carries(headers: list[tuple[str, str]], keys: list[str]) -> None:
    scope = {"headers": [(name.encode(), value.encode()) for name, value in headers]}
    assert given_keys(scope) == [key.encode() for key in keys]


def test_who_is_let_in() -> None:
    scope = {"headers": [(b"x-api-key", KEY.encode())]}
    KeyRing([]).check({"headers": []})
    KeyRing([SecretStr("another-one"), SecretStr(KEY)]).check(scope)
    for keys, given in ((["another-one"], scope), ([KEY], {"headers": []}), ([KEY + "x"], scope), ([KEY[:-1]], scope)):
        with pytest.raises(TorchlessError) as raised:
            KeyRing([SecretStr(key) for key in keys]).check(given)
        assert raised.value.kind is ErrorKind.UNAUTHENTICATED
        assert KEY not in raised.value.message


def test_keys_come_from_the_environment_and_show_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", f'["{KEY}"]')
    settings = GatewaySettings.load()
    assert [key.get_secret_value() for key in settings.auth.api_keys] == [KEY]
    for shown in (repr(settings), str(settings.auth), settings.model_dump_json(), repr(AuthSettings)):
        assert KEY not in shown


@pytest.mark.parametrize(
    "key", ["", "short", " with-spaces-around", "with-a-\\nbreak", "with-a-\\u0000", "schlüssel-zwei", "with-a-\\u200b"]
)
def test_keys_that_no_request_could_carry_or_anybody_could_guess(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", f'["{KEY}", "{key}"]')
    with pytest.raises(SettingsError, match="AUTH__API_KEYS") as raised:
        GatewaySettings.load()
    assert KEY not in str(raised.value)


def test_keys_in_other_characters_than_ascii_are_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", '["schlüssel-zwei"]')
    with pytest.raises(SettingsError, match="must be printable ASCII; clients encode other") as raised:
        GatewaySettings.load()
    assert "schl" not in str(raised.value)
