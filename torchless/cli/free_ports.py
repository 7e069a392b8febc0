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
        held: list[socket.socket] = []
        try:
            for offset in range(count):
                held.append(socket.create_server(("127.0.0.1", first + offset)))
        except (OSError, OverflowError):  # one of them is taken, or past 65535
            continue
        finally:
            _released(held)
        return first


def _released(held: list[socket.socket]) -> list[int]:
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports
