"""Settings of the cache: what is refused, and what is never shown."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from torchless.clients.cache.settings import CacheSettings


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://h",
        "redis://:pw@h:6379/0",
        "rediss://u:p%2F@h:1/2",
        "rediss://h?ssl_ca_certs=/run/ca.pem",
        "unix:///run/r.sock",
        "unix:///run/r.sock?db=2&username=u&password=p",
    ],
)
def test_valid_redis_urls_are_accepted(url: str) -> None:
    assert CacheSettings.model_validate({"redis_url": url}).redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        "http://:hidden@h",
        "h:6379",
        "redis://:hidden/x@h:6379",
        "redis://h:hidden",
        "redis://h?decode_responses=hidden",
        "redis://h?max_connections=1",
        "redis://h?ssl_ca_certs=hidden",
        "redis://h?db=hidden",
        "redis://h?hidden",
    ],
)
def test_invalid_redis_urls_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CacheSettings.model_validate({"redis_url": url})
    (fault,) = caught.value.errors(include_input=False, include_context=False)
    assert fault["loc"] == ("redis_url",)
    assert "hidden" not in fault["msg"]


def test_a_password_is_not_shown() -> None:
    settings = CacheSettings.model_validate({"redis_url": "redis://:hidden@h:6379/0"})
    assert "hidden" not in repr(settings)
    assert "hidden" not in settings.model_dump_json()


@pytest.mark.parametrize("name", ["", "a:b", "a*b", "with space", "x" * 65])
def test_namespace_is_a_plain_word(name: str) -> None:
    with pytest.raises(ValidationError):
        CacheSettings(namespace=name)
