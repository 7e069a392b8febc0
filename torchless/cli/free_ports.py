"""Finds free ports of 127.0.0.1, for stacks that start on any port: demo, benchmarks, tests."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack

_RANGE = range(10_000, 32_768)
"""Where to look: below the ports that Linux gives to outgoing connections (net.ipv4.ip_local_port_range), which could
take a port between its choice and its use."""


def free_port() -> int:
    """A port on which nothing listened a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """`count` consecutive ports on which nothing listened a moment ago."""
    while True:
        first = _RANGE.start + secrets.randbelow(len(_RANGE) - count)
        ports = list(range(first, first + count))
        with ExitStack() as held:
            try:
                for port in ports:
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:  # taken
                continue
            return ports
