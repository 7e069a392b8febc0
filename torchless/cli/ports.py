"""Checks that the ports of the stack are free."""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from torchless.cli.errors import StackError


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port that a service listens on."""

    number: int
    """1 to 65535."""
    name: str
    """Its name in `torchless up --port`."""
    host: str = "127.0.0.1"
    """The interface."""


def check_ports(ports: Sequence[Port]) -> None:
    """Checks that every port is free, and that no two services use the same one.

    Raises:
        StackError: Ports are not usable; the message has one line for each, with the option that changes it.
    """
    problems = [*_used_twice(ports), *filter(None, map(_problem, ports))]
    if problems:
        raise StackError("\n".join(problems))


def _problem(port: Port) -> str:
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # A port whose last connections have only just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host, port.number))
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            return (
                f"port {port.number} on {port.host} cannot be used ({_holder(port.number) or reason}); "
                f"choose another with --port {port.name}=NUMBER"
            )
    return ""


def _holder(number: int) -> str:
    """The process that listens on a port; empty if there is none, or if it belongs to another user."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:  # some systems show them to root only
        return ""
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.pid
            and connection.laddr
            and connection.laddr.port == number
        ):
            try:
                return f"process {connection.pid}, {psutil.Process(connection.pid).name()}, listens on it"
            except psutil.Error:
                return f"process {connection.pid} listens on it"
    return ""


def _used_twice(ports: Sequence[Port]) -> Iterator[str]:
    """Compares port numbers whatever their interface: two names may stand for the same interface."""
    names = defaultdict[int, list[str]](list)
    for port in ports:
        names[port.number].append(port.name)
    for number, same in names.items():
        if len(same) > 1:
            yield f"{' and '.join(same)} both use port {number}; change one with --port {same[-1]}=NUMBER"
