"""Keeps this process on loopback: what tries to leave is refused and remembered."""

from __future__ import annotations

import sys
from typing import Any

_HOST_OF_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_HOST = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


class NetworkWatch:
    """Records every connection and every name lookup that Python code makes, in any thread.

    Clients swallow errors of their telemetry, so a refusal alone proves nothing: a test checks `strangers`.
    An audit hook cannot be taken away again, so there is one watch for a process.
    """

    def __init__(self) -> None:
        self.strangers: list[str] = []
        """Hosts other than this machine that were looked up or connected to, in order."""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _HOST:
            host = arguments[0]
        elif event in _HOST_OF_ADDRESS and isinstance(arguments[1], tuple):
            host = arguments[1][0]  # a unix socket's address is no tuple
        else:
            return
        if isinstance(host, bytes):
            host = host.decode()
        if host not in (None, "127.0.0.1"):
            self.strangers.append(str(host))
            raise ConnectionRefusedError(f"{event} to {host}: tests stay on 127.0.0.1")
