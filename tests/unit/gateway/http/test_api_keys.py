"""API keys are read from every header that clients use, and never shown."""

from __future__ import annotations

import hmac
import json

import pytest
from pydantic import SecretStr
from starlette.types import Scope

from gateway.http.api_keys import APIKeyAuthenticator, authenticator, sent_keys
from gateway.http.identity import ANONYMOUS, Principal
from gateway.settings import ALL_SCOPES, APIKey, AuthSettings, GatewaySettings
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
def test_keys_are_read_from_headers(headers: list[tuple[str, str]], keys: list[str]) -> None:
    scope = {"headers": [(name.encode(), value.encode()) for name, value in headers]}
    assert sent_keys(scope) == [key.encode() for key in keys]


async def test_a_request_with_a_valid_key_gets_the_principal_of_the_key() -> None:
    scope: Scope = {"headers": [(b"x-api-key", KEY.encode())]}
    assert await authenticator([]).authenticate({"headers": []}) is ANONYMOUS
    key = APIKey(key=SecretStr(KEY), name="n", tenant="t", scopes=("embed",))
    principal = await APIKeyAuthenticator([APIKey(key=SecretStr("another-one")), key]).authenticate(scope)
    assert principal == Principal("n", "t", frozenset({"embed"}))


@pytest.mark.parametrize(
    ("key", "sent"), [("another-one", KEY), (KEY, None), (KEY + "x", KEY), (KEY[:-1], KEY), (KEY, KEY.upper())]
)
async def test_a_request_without_a_valid_key_is_unauthenticated(key: str, sent: str | None) -> None:
    headers = [] if sent is None else [(b"x-api-key", sent.encode())]
    with pytest.raises(TorchlessError) as raised:
        await APIKeyAuthenticator([APIKey(key=SecretStr(key))]).authenticate({"headers": headers})
    assert raised.value.kind is ErrorKind.UNAUTHENTICATED
    assert KEY not in raised.value.message


async def test_every_sent_key_is_compared_with_every_configured_key(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = [APIKey(key=SecretStr(f"key-number-{number}")) for number in range(3)]
    headers = [(b"authorization", b"Bearer key-number-0"), (b"x-api-key", b"key-number-1")]
    await APIKeyAuthenticator(keys).authenticate({"headers": headers})
    assert len(set(compared)) == 6


def test_keys_are_read_from_the_environment_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", f'["{KEY}"]')
    settings = GatewaySettings.load()
    (key,) = settings.auth.api_keys
    assert (key.key.get_secret_value(), key.name, key.tenant) == (KEY, "", "")
    assert set(key.scopes) == ALL_SCOPES
    for shown in (repr(settings), str(settings.auth), settings.model_dump_json(), repr(AuthSettings)):
        assert KEY not in shown


@pytest.mark.parametrize(
    "key", ["", "short", " with-spaces-around", "with-a-\\nbreak", "with-a-\\u0000", "schlüssel-zwei", "with-a-\\u200b"]
)
def test_keys_that_cannot_be_sent_or_are_too_short_are_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", f'["{KEY}", "{key}"]')
    with pytest.raises(SettingsError, match="AUTH__API_KEYS") as raised:
        GatewaySettings.load()
    assert KEY not in str(raised.value)


def test_keys_in_other_characters_than_ascii_are_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", '["schlüssel-zwei"]')
    with pytest.raises(
        SettingsError, match="a key must be printable ASCII; clients encode other characters differently"
    ) as raised:
        GatewaySettings.load()
    assert "schl" not in str(raised.value)


def test_keys_may_have_a_name_a_tenant_and_scopes(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = f'{{"key": "{KEY}", "name": "indexer", "tenant": "ward-7", "scopes": ["embed", "gpu:read"]}}'
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", f'["another-one", {entry}]')
    first, second = GatewaySettings.load().auth.api_keys
    assert (first.tenant, frozenset(first.scopes)) == ("", ALL_SCOPES)
    assert (second.name, second.tenant, set(second.scopes)) == ("indexer", "ward-7", {"embed", "gpu:read"})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"scopes": ["embed", "fly"]}, "embed"),
        ({"tenant": "größe"}, "a tenant must consist of printable ASCII"),
        ({"tenant": "ward-7 "}, "a tenant must have no space at its ends"),
        ({"key": "another-one"}, "two entries have the same key"),
        ({"key": "short"}, "at least 8 characters"),
        ({"roles": []}, "roles"),
    ],
)
def test_api_keys_that_are_not_valid_are_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, entry: dict[str, object], said: str
) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", json.dumps(["another-one", {"key": KEY, **entry}]))
    with pytest.raises(SettingsError) as raised:
        GatewaySettings.load()
    assert said in str(raised.value)
    assert KEY not in str(raised.value)


def test_a_key_that_is_a_number_is_refused_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", "[12345678]")
    with pytest.raises(SettingsError, match=r"key should be a valid string"):
        GatewaySettings.load()
