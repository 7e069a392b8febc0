"""Finds ports on loopback that nothing listens on, for stacks that start on any port: demo, benchmarks, tests."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """`count` different ports that nothing listened on a moment ago."""
    return _released([socket.create_server(("127.0.0.1", 0)) for _ in range(count)])


def free_port_run(count: int) -> int:
    """The first of `count` consecutive ports that nothing listened on a moment ago."""
    while True:
        first = free_port()
        if all(map(_is_free, range(first, first + count))):
            return first


def _released(held: list[socket.socket]) -> list[int]:
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except (OSError, OverflowError):  # taken, or past 65535
        return False
    return True
