"""Addresses in settings, and the endpoints that they stand for."""

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
"""A host that ends in a number is an IPv4 address: no top-level domain is a number (RFC 3696, section 2)."""


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of an address."""

    text: str
    """The entry without `dns:///`; gRPC connects to it if it is one endpoint."""
    many: bool
    """Whether each address of the name is a separate endpoint."""

    async def endpoints(self) -> list[str]:
        """The `host:port` of each endpoint, in a fixed order.

        If the name has IPv4 and IPv6 addresses, only those of the family that the system prefers (RFC 6724), so that no
        host counts twice.

        Raises:
            OSError: The name cannot be resolved now.
        """
        if not self.many:
            return [self.text]
        host, port = _host_and_port(self.text)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError("the name is malformed") from error
        family = found[0][0]
        hosts = {str(address[0]) for found_family, _, _, _, address in found if found_family == family}
        return sorted(f"[{host}]:{port}" if family is socket.AF_INET6 else f"{host}:{port}" for host in hosts)


def parse(address: str) -> list[Target]:
    """The targets that `address` lists.

    Raises:
        ValueError: An entry is malformed; the message says which one, and how to write it.
    """
    return [_target(entry.strip(), number) for number, entry in enumerate(address.split(","), start=1)]


def _target(entry: str, number: int) -> Target:
    if entry.startswith(_SOCKET) and entry != _SOCKET:
        return Target(entry, many=False)
    text = entry.removeprefix(_DNS)
    try:
        _host_and_port(text)
    except ValueError as error:
        raise ValueError(f"entry {number} of the address {error}; write host:port or dns:///name:port") from None
    return Target(text, many=entry.startswith(_DNS))


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not text:
        raise ValueError("is empty")
    if "/" in text:
        raise ValueError("is a URL or another unsupported form")
    if not colon or not host or not (port.isascii() and port.isdecimal()):
        raise ValueError("has no port")
    if len(port) > 5 or not 0 < int(port) < 2**16:
        raise ValueError("has an invalid port: the port must be 1 to 65535")
    return _check_host(host), int(port)


def _check_host(host: str) -> str:
    """`host`, a name or an IP address, without brackets."""
    try:
        if host.startswith("[") and host.endswith("]"):
            return str(ipaddress.IPv6Address(host[1:-1]))
        if ":" in host:
            raise ValueError("has a colon in its host: put an IPv6 address in brackets")
        if _NUMBERS.fullmatch(host):
            return str(ipaddress.IPv4Address(host))
    except ipaddress.AddressValueError:
        raise ValueError("has an invalid IP address") from None
    if not _NAME.fullmatch(host):
        raise ValueError("has an invalid host name")
    return host
