"""What an address stands for, and how names become endpoints."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchless.clients.addresses import Target, parse
from torchless.clients.settings import ClientSettings

INET, INET6 = socket.AF_INET, socket.AF_INET6


def entry(family: socket.AddressFamily, host: str) -> tuple[Any, ...]:
    return (family, socket.SOCK_STREAM, 6, "", (host, 50051) if family is INET else (host, 50051, 0, 0))


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("embedding:50051", [Target("embedding:50051", many=False)]),
        (" a:1 ,b:2", [Target("a:1", many=False), Target("b:2", many=False)]),
        ("dns:///name:50051", [Target("name:50051", many=True)]),
        ("a:1,dns:///b:2", [Target("a:1", many=False), Target("b:2", many=True)]),
        ("[::1]:50051", [Target("[::1]:50051", many=False)]),
        ("dns:///[::1]:50051", [Target("[::1]:50051", many=True)]),
        ("unix:/run/embedding.sock", [Target("unix:/run/embedding.sock", many=False)]),
        ("10.0.0.1:1", [Target("10.0.0.1:1", many=False)]),
        ("_grpc.a-b.c1.:1", [Target("_grpc.a-b.c1.:1", many=False)]),
    ],
)
def test_address_is_parsed_into_targets(address: str, targets: list[Target]) -> None:
    assert parse(address) == targets


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "entry 1 of the address is empty"),
        ("a:1,,b:2", "entry 2 of the address is empty"),
        ("a:1,", "entry 2 of the address is empty"),
        ("dns:///", "entry 1 of the address is empty"),
        ("a", "has no port"),
        ("a:", "has no port"),
        (":1", "has no port"),
        ("a:x", "has no port"),
        ("a:-1", "has no port"),
        ("a:²", "has no port"),
        ("a:0", "has an invalid port: the port must be 1 to 65535"),
        ("a:65536", "has an invalid port: the port must be 1 to 65535"),
        ("a:000001", "has an invalid port: the port must be 1 to 65535"),
        ("::1:50051", "has a colon in its host: put an IPv6 address in brackets"),
        ("ipv4:10.0.0.1:1", "has a colon in its host"),
        ("[::1:1", "has a colon in its host"),
        ("[::g]:1", "has an invalid IP address"),
        ("[10.0.0.1]:1", "has an invalid IP address"),
        ("999.0.0.1:1", "has an invalid IP address"),
        ("10.0.1:1", "has an invalid IP address"),
        ("a b:1", "has an invalid host name"),
        ("a..b:1", "has an invalid host name"),
        ("a\n:1", "has an invalid host name"),
        ("a\0:1", "has an invalid host name"),
        ("unix:", "has no port"),
        ("http://a:1", "is a URL or another unsupported form"),
        ("dns://8.8.8.8/name:1", "is a URL or another unsupported form"),
        ("xds:///name:1", "is a URL or another unsupported form"),
    ],
)
def test_invalid_address_is_refused_with_its_position(address: str, said: str) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        parse(address)
    assert said in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        targets = parse(text)
    except ValueError:
        return
    assert targets
    assert all(target.text for target in targets)


def test_address_setting_may_be_a_list_and_is_checked() -> None:
    assert ClientSettings(address=["a:1", "b:2"]).address == "a:1,b:2"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="entry 2 of the address has no port"):
        ClientSettings(address="a:1,b")


async def resolved(monkeypatch: pytest.MonkeyPatch, *found: tuple[Any, ...], host: str = "name") -> list[str]:
    async def getaddrinfo(*args: Any, **options: Any) -> list[Any]:
        return list(found)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return await Target(f"{host}:50051", many=True).endpoints()


async def test_each_address_of_a_name_is_one_endpoint_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [entry(INET, host) for host in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]
    assert await resolved(monkeypatch, *found) == ["10.0.0.1:50051", "10.0.0.2:50051"]


async def test_preferred_address_family_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [entry(INET6, "fd00::1"), entry(INET, "10.0.0.1"), entry(INET6, "fd00::2")]
    assert await resolved(monkeypatch, *both) == ["[fd00::1]:50051", "[fd00::2]:50051"]
    assert await resolved(monkeypatch, *reversed(both[:2])) == ["10.0.0.1:50051"]


async def test_single_endpoint_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*args: Any, **options: Any) -> list[Any]:
        raise AssertionError

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    assert await Target("name:1", many=False).endpoints() == ["name:1"]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
async def test_system_resolver_is_used(name: str) -> None:
    assert await Target(f"{name}:7", many=True).endpoints() in (["127.0.0.1:7"], ["[::1]:7"])


@pytest.mark.parametrize("name", ["x" * 70 + ".org", "nobody.invalid"])
async def test_malformed_name_raises_oserror(name: str) -> None:
    with pytest.raises(OSError, match=r"."):
        await Target(f"{name}:1", many=True).endpoints()
