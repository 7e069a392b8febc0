"""Whether a request came over a loopback address."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope


def is_over_loopback(scope: Scope) -> bool:
    """Whether the client connected to a loopback address, whatever addresses the gateway listens on."""
    server = scope.get("server")
    return server is not None and _is_loopback(server[0])


def is_address(name: str) -> bool:
    """Whether `name` is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=64)
def _is_loopback(address: str) -> bool:
    if not is_address(address):  # the path of a Unix socket
        return False
    parsed = ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback
