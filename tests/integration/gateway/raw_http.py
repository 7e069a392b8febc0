"""HTTP over a plain socket: what is sent and received, byte for byte."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx


@dataclass(frozen=True)
class Answer:
    """An answer, and its fields by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class RawConnection:
    """One connection to the gateway that `http` calls.

    Args:
        http: A client of the gateway.
        patience_s: Longest wait for an answer or the end, in seconds.
    """

    def __init__(self, http: httpx.Client, patience_s: float = 30.0) -> None:
        self.socket = socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=patience_s)
        self._received = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._received.close()
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Sends each part as a separate packet, as far as the system allows."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            self.socket.sendall(part)

    def answer(self) -> Answer:
        """The next answer, whose body has a Content-Length."""
        status = self._received.readline()
        assert status, "the connection has ended"
        headers = {}
        while line := self._received.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(status.split()[1]), headers, self._received.read(int(headers["content-length"])))

    def has_ended(self) -> bool:
        """Waits for the gateway to close the connection; false: it sent something."""
        return self._received.read(1) == b""


def post(body: bytes, *fields: str, path: str = "/v1/embeddings", length: bool = True) -> bytes:
    """A POST request as bytes; `fields` are further header lines."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(body: bytes, size: int, trailer: bytes = b"") -> bytes:
    """`body` in chunks."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailer + b"\r\n"
