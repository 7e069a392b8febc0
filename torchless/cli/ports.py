"""Checks that the ports of the stack are free."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from torchless.cli.errors import StackError


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port that a service listens on."""

    number: int
    """1 to 65535."""
    option: str
    """The option of `torchless up` that changes it."""
    host: str = "127.0.0.1"
    """The interface."""


def check_ports(ports: Sequence[Port]) -> None:
    """Checks that every port is free, and that no two services use the same one.

    Raises:
        StackError: A port is not usable; the message names the option that changes it.
    """
    _check_different(ports)
    for port in ports:
        family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A port whose last connections have only just closed is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.host, port.number))
            except OSError as error:
                reason = os.strerror(error.errno).lower() if error.errno else str(error)
                raise StackError(
                    f"port {port.number} on {port.host} cannot be used ({reason}); choose another with {port.option}"
                ) from error


def _check_different(ports: Sequence[Port]) -> None:
    """Compares port numbers whatever their interface: two names may stand for the same interface."""
    options: dict[int, str] = {}
    for port in ports:
        other = options.setdefault(port.number, port.option)
        if other != port.option:
            raise StackError(f"{other} and {port.option} both use port {port.number}; change one of them")
