"""Whether the ports of the stack are free."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from torchless.cli.errors import StackError
from torchless.cli.services import Port


def check_ports(ports: Sequence[Port]) -> None:
    """Makes sure that every port can be listened on, and by one service alone.

    Raises:
        StackError: One cannot; the message names the option that moves it, or the two that ask for the same port.
    """
    _check_different(ports)
    for port in ports:
        family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A port whose last connections only just closed is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.host, port.number))
            except OSError as error:
                reason = os.strerror(error.errno).lower() if error.errno else str(error)
                raise StackError(
                    f"port {port.number} on {port.host} cannot be used ({reason}); choose another with {port.option}"
                ) from error


def _check_different(ports: Sequence[Port]) -> None:
    """Also of different interfaces: one may stand for all of them, or for another by its name."""
    options: dict[int, str] = {}
    for port in ports:
        other = options.setdefault(port.number, port.option)
        if other != port.option:
            raise StackError(f"port {port.number} is asked for by both {other} and {port.option}; change one of them")
