"""Finds free ports of 127.0.0.1, for stacks that start on any port: demo, benchmarks, tests."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_port() -> int:
    """A port on which nothing listened a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """`count` consecutive ports on which nothing listened a moment ago."""
    while True:
        with ExitStack() as held:
            first = int(held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1])
            ports = list(range(first, first + count))
            try:
                for port in ports[1:]:
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except (OSError, OverflowError):  # taken, or above 65535
                continue
            return ports
