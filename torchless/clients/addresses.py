"""What an address in the settings stands for, and the endpoints that it means right now."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass

_DNS = "dns:///"
_SOCKET = "unix:"
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
_NUMBERS = re.compile(r"(.*\.)?[0-9]+")
"""What looks like an IPv4 address is one: no top-level domain is a number (RFC 3696, section 2)."""


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of an address."""

    text: str
    """As it is written, without `dns:///`: what gRPC connects to where it is one endpoint."""
    many: bool
    """Whether every address that the name has is an endpoint of its own."""

    async def endpoints(self) -> list[str]:
        """The `host:port` of each endpoint, in a fixed order.

        Of a name with addresses of both families, those of the family that the system prefers (RFC 6724): the same host
        must not count twice.

        Raises:
            OSError: The name is not known (now).
        """
        if not self.many:
            return [self.text]
        host, port = _host_and_port(self.text)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # a name that cannot be one
            raise OSError("the name is malformed") from error
        family = found[0][0]
        hosts = {str(address[0]) for each, _, _, _, address in found if each == family}
        return sorted(f"[{each}]:{port}" if family is socket.AF_INET6 else f"{each}:{port}" for each in hosts)


def parse(address: str) -> list[Target]:
    """The targets that `address` lists.

    Raises:
        ValueError: An entry is empty or has no port; the message says which.
    """
    return [_target(entry.strip(), place) for place, entry in enumerate(address.split(","), start=1)]


def _target(entry: str, place: int) -> Target:
    if entry.startswith(_SOCKET) and entry != _SOCKET:
        return Target(entry, many=False)
    text = entry.removeprefix(_DNS)
    try:
        _host_and_port(text)
    except ValueError as error:
        raise ValueError(f"entry {place} of the address {error}; write host:port or dns:///name:port") from None
    return Target(text, many=entry.startswith(_DNS))


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not text:
        raise ValueError("is empty")
    if "/" in text:
        raise ValueError("is a URL or a kind of target that is not known")
    if not colon or not host or not (port.isascii() and port.isdecimal()):
        raise ValueError("has no port")
    if len(port) > 5 or not 0 < int(port) < 2**16:
        raise ValueError("has a port that there is not")
    return _checked(host), int(port)


def _checked(host: str) -> str:
    """A name or an IP address, without its brackets."""
    try:
        if host.startswith("[") and host.endswith("]"):
            return str(ipaddress.IPv6Address(host[1:-1]))
        if ":" in host:
            raise ValueError("has a colon in its host, and an IPv6 address goes in brackets")
        if _NUMBERS.fullmatch(host):
            return str(ipaddress.IPv4Address(host))
    except ipaddress.AddressValueError:
        raise ValueError("has an IP address that cannot be one") from None
    if not _NAME.fullmatch(host):
        raise ValueError("has a host that cannot be one")
    return host
